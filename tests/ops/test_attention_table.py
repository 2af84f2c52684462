"""Which implementation serves which task, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.attention import attention, use_attention
from mammoth_jax.ops.attention.per_device import divide
from mammoth_jax.ops.attention.table import IMPLEMENTATIONS, choose
from mammoth_jax.ops.attention.task import AttentionTask

TRAINING = AttentionTask(
    platform="cpu",
    batch=1,
    query_length=16384,
    key_length=16384,
    heads=32,
    kv_heads=8,
    head_dim=128,
    dtype="bfloat16",
    causal=True,
    segments=True,
)
SMALL = dataclasses.replace(TRAINING, query_length=64, key_length=64, heads=4, kv_heads=2)


@dataclasses.dataclass(frozen=True)
class NoCausal:
    """An implementation that lacks something."""

    name = "nocausal"

    def lacks(self, task):
        return "has no causal mask" if task.causal else None

    def __call__(self, query, key, value, mask, scale):
        return jnp.zeros_like(query)


def scores_in_memory(*shape):
    """Whether a program of this shape holds an array with all scores of a head."""

    def program(x):
        return jnp.sum(attention(x, x, x, causal=True))

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    text = jax.jit(jax.grad(program)).lower(x).as_text()
    return f"{shape[1]}x{shape[1]}x" in text


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu", "unknown"])
def test_no_platform_trains_on_written_out_scores(platform):
    for features in ({}, {"head_dim": 20}, {"dtype": "float32"}, {"offset": True}, {"segments": False}):
        task = dataclasses.replace(TRAINING, platform=platform, **features)
        assert choose(task).name != "reference", features


def test_small_tasks_are_written_out():
    assert choose(SMALL).name == "reference"
    assert scores_in_memory(1, 72, 2, 8)


def test_long_sequences_hold_no_scores():
    assert not scores_in_memory(1, 2056, 2, 8)


def test_an_unknown_name_is_refused_with_those_known():
    with pytest.raises(InputError, match=r"'fast' is unknown; known: reference, chunked"):
        choose(SMALL, "fast")
    with pytest.raises(InputError, match="'fast' is unknown"):
        use_attention("fast")


def test_a_lack_is_refused_by_name_with_alternatives():
    with pytest.raises(InputError, match=r"'nocausal' has no causal mask; reference, chunked.* can"):
        choose(SMALL, NoCausal())
    with use_attention(NoCausal()), pytest.raises(InputError, match="'nocausal' has no causal mask"):
        choose(SMALL)


def test_a_scoped_override_compiles_the_program_again():
    x = jnp.ones((1, 4, 1, 8))
    program = jax.jit(lambda x: attention(x, x, x))
    assert program(x).any()
    with use_attention(NoCausal()):
        assert not program(x).any()
    assert program(x).any()


def test_a_named_implementation_comes_before_the_override():
    with use_attention(NoCausal()):
        assert choose(SMALL, "chunked").name == "chunked"


def test_names_are_those_of_the_objects():
    assert all(name == each.name for name, each in IMPLEMENTATIONS.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_segments": jnp.ones((1, 4), jnp.int32)}, "segments for both"),
        ({"query_offset": jnp.zeros(1, jnp.int32)}, "needs causal"),
    ],
    ids=["segments of one side", "offset of full attention"],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    x = jnp.ones((1, 4, 1, 8))
    with pytest.raises(InputError, match=message):
        attention(x, x, x, **options)


def test_key_heads_must_divide_query_heads():
    with pytest.raises(InputError, match="k divides h"):
        attention(jnp.ones((1, 4, 3, 8)), jnp.ones((1, 4, 2, 8)), jnp.ones((1, 4, 2, 8)))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tensor", "local"),
    [
        (32, 8, 4, {"heads": 8, "kv_heads": 2}),
        (8, 2, 4, {"heads": 2, "kv_heads": 1}),
        (21, 7, 8, {"query_length": 2048, "offset": True}),
        (28, 4, 8, {"query_length": 2048, "offset": True}),
    ],
)
def test_division_over_the_tensor_axis(heads, kv_heads, tensor, local):
    task = dataclasses.replace(TRAINING, heads=heads, kv_heads=kv_heads)
    with jax.set_mesh(make_mesh({"data": 1, "fsdp": 8 // tensor, "tensor": tensor})):
        assert divide(task).local(task) == dataclasses.replace(task, **local)


def test_rows_are_divided_over_data_and_fsdp():
    task = dataclasses.replace(TRAINING, batch=8)
    with jax.set_mesh(make_mesh({"data": 2, "fsdp": 4, "tensor": 1})):
        assert divide(task).local(task).batch == 1


def test_costs_count_the_causal_half_and_five_products_backward():
    full = dataclasses.replace(TRAINING, causal=False)
    assert full.flops() == 4 * 32 * 16384**2 * 128
    assert TRAINING.flops() * 2 == full.flops()
    assert full.flops(backward=True) * 2 == full.flops() * 5
    assert full.bytes() == 2 * 16384 * 128 * (2 * 32 + 2 * 8) + 4 * 16384 * 32
    assert full.score_bytes == 4 * 32 * 16384**2
