"""Which implementation serves which task, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import AXES, make_mesh
from mammoth_jax.ops.attention import attention, library, use_attention
from mammoth_jax.ops.attention.per_device import divide
from mammoth_jax.ops.attention.segment_runs import are_only_padded, are_packed, find_runs
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


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        (
            "pallas_tpu",
            {"platform": "cpu"},
            "'pallas_tpu' needs a TPU, not cpu; reference, chunked, cache_sized can",
        ),
        ("pallas_tpu", {"head_dim": 20}, "has no head size 20"),
        (
            "splash",
            {"offset": True},
            "'splash' has no query offset; reference, chunked, cache_sized, pallas_tpu can",
        ),
        ("cudnn", {}, "'cudnn' needs a GPU, not tpu"),
        ("cudnn", {"platform": "gpu"}, "needs cuDNN"),
        ("tokamax", {}, "'tokamax' needs the package tokamax .install the extra"),
    ],
)
def test_libraries_and_kernels_are_refused_where_they_cannot(name, features, message, monkeypatch):
    monkeypatch.setattr(library, "_has_cudnn", lambda: False)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=message):
        choose(dataclasses.replace(TRAINING, **{"platform": "tpu", **features}), name)


def test_accelerators_train_on_their_own_kernels(monkeypatch):
    monkeypatch.setattr(library, "_has_cudnn", lambda: True)
    assert choose(dataclasses.replace(TRAINING, platform="tpu")).name == "pallas_tpu"
    assert choose(dataclasses.replace(TRAINING, platform="gpu")).name == "cudnn"
    assert choose(dataclasses.replace(TRAINING, platform="gpu", dtype="float32")).name == "chunked"
    assert choose(dataclasses.replace(TRAINING, platform="tpu", head_dim=512)).name == "chunked"


def test_a_mesh_of_tpus_is_compiled_for_without_one():
    device = AbstractDevice(device_kind="TPU v5p", num_cores=1, platform="tpu")
    mesh = AbstractMesh((1, 1, 1), AXES, (AxisType.Auto,) * 3, abstract_device=device)
    x = jax.ShapeDtypeStruct((1, 2048, 4, 64), jnp.bfloat16)
    with jax.sharding.use_abstract_mesh(mesh):
        text = str(jax.make_jaxpr(lambda x: attention(x, x, x))(x))
    assert "attention_forward" in text
    assert "attention_forward" not in str(jax.make_jaxpr(lambda x: attention(x, x, x))(x))


def test_runs_of_segments_are_told_apart():
    rows = jnp.asarray([[1, 1, 2, 0, 3, 3, 0], [4, 4, 4, 0, 0, 0, 0]])
    runs = find_runs(rows, 4)
    assert runs.start.tolist() == [[0, 2, 4, -1], [0, -1, -1, -1]]
    assert runs.length.tolist() == [[2, 1, 2, -1], [3, -1, -1, -1]]
    assert runs.segment.tolist() == [[1, 2, 3, 0], [4, 0, 0, 0]]
    assert are_packed(runs, runs, True) and not are_only_padded(runs, runs)
    assert not are_packed(find_runs(rows, 2), find_runs(rows, 2), True)  # more runs than are kept
    padded = find_runs(rows[1:], 4)
    assert are_packed(padded, padded, True) and are_only_padded(padded, padded)


@pytest.mark.parametrize(
    ("queries", "keys", "causal", "packed"),
    [
        ([1, 1, 2, 2], [1, 2, 2, 2], False, True),
        ([1, 1, 2, 2], [1, 2, 2, 2], True, False),  # their indices do not start together
        ([1, 1, 2, 2], [2, 2, 1, 1], False, False),  # another order
        ([1, 2, 1, 0], [1, 2, 1, 0], False, False),  # a segment in two runs
        ([1, 1, 2, 2], [1, 1, 0, 0], False, False),  # queries without keys
    ],
)
def test_only_matching_runs_are_packed(queries, keys, causal, packed):
    queries, keys = (find_runs(jnp.asarray([row]), 3) for row in (queries, keys))
    assert bool(are_packed(queries, keys, causal)) == packed
    assert not are_only_padded(queries, keys)


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
