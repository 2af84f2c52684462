"""Every implementation against the reference: values and the gradients of queries, keys and values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.core.sharding import ShardingRules, use_rules
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.attention.chunked import Chunked
from mammoth_jax.ops.attention.library import CUDNN, Splash
from mammoth_jax.ops.attention.pallas_tpu import PallasTPU
from mammoth_jax.ops.attention.task import AttentionTask


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem: sizes and what hides keys; segments are run lengths, and the rest of a row is padding."""

    name: str
    heads: tuple[int, int] = (4, 2)
    head_dim: int = 64
    lengths: tuple[int, int] = (150, 150)
    batch: int = 1
    causal: bool = False
    offsets: tuple[int, ...] | None = None
    segments: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    dtype: str = "float32"

    def __str__(self):
        return self.name


CASES = (
    Case("head size 64, full"),
    Case("head size 72, causal", head_dim=72, causal=True),
    Case("head size 80, segments", head_dim=80, segments=((40, 70, 40), (40, 70, 40))),
    Case("head size 120, 21/7 heads", head_dim=120, heads=(21, 7)),
    Case("head size 128, 32/8 heads, causal", head_dim=128, heads=(32, 8), causal=True),
    Case("head size 128, 28/4 heads, padded", head_dim=128, heads=(28, 4), segments=((100,), (100,))),
    Case("small head size", head_dim=16, heads=(2, 2), lengths=(20, 20)),
    Case("queries fewer than keys", lengths=(70, 300), segments=((30, 40), (180, 90))),
    Case("keys fewer than queries", lengths=(300, 70), segments=((150, 140), (20, 40))),
    Case("causal within packed segments", batch=2, causal=True, segments=((61, 50, 20), (61, 50, 20))),
    Case("prefill goes on", batch=2, lengths=(70, 200), causal=True, offsets=(0, 130)),
    Case(
        "prefill goes on with padding",
        batch=2,
        lengths=(70, 200),
        causal=True,
        offsets=(20, 100),
        segments=((60,), (180,)),
    ),
    Case("a row of padding only", batch=2, segments=((), ())),
    Case("keys of padding only", batch=2, lengths=(40, 150), segments=((40,), ())),
    Case("bfloat16", head_dim=128, dtype="bfloat16", causal=True, segments=((100, 30), (100, 30))),
)

# What a case adds to those that always run is little: these run with the slow ones.
RARELY = {
    "chunked": {
        "head size 64, full",
        "head size 72, causal",
        "head size 128, 32/8 heads, causal",
        "head size 128, 28/4 heads, padded",
        "queries fewer than keys",
        "keys fewer than queries",
        "a row of padding only",
        "prefill goes on",
    },
    "pallas_tpu": {
        "head size 64, full",
        "head size 80, segments",
        "head size 128, 32/8 heads, causal",
        "head size 128, 28/4 heads, padded",
        "small head size",
        "queries fewer than keys",
        "keys fewer than queries",
        "causal within packed segments",
        "prefill goes on",
        "a row of padding only",
        "keys of padding only",
    },
}


def cases_of(name):
    marks = {case: pytest.mark.slow if case.name in RARELY[name] else () for case in CASES}
    return [pytest.param(case, marks=marks[case], id=case.name) for case in CASES]


SMALL_BLOCKS = Chunked(query_block=64, key_block=32)
INTERPRETED = PallasTPU(interpret=True)
SPLASH = Splash(interpret=True)


def make_inputs(case, seed=0):
    """Queries, keys, values, the gradient of the output, and the keyword arguments of a case."""
    rng = np.random.default_rng(seed)
    (h, k), (s, t), b, e = case.heads, case.lengths, case.batch, case.head_dim
    shapes = ((b, s, h, e), (b, t, k, e), (b, t, k, e), (b, s, h, e))
    arrays = [jnp.asarray(rng.normal(size=shape), case.dtype) for shape in shapes]
    options = {"causal": case.causal}
    if case.offsets is not None:
        options["query_offset"] = jnp.asarray(case.offsets, jnp.int32)
    if case.segments is not None:
        names = ("query_segments", "key_segments")
        for name, runs, length in zip(names, case.segments, case.lengths, strict=True):
            row = np.repeat(np.arange(len(runs)) + 1, runs)
            options[name] = jnp.asarray(np.tile(np.pad(row, (0, length - len(row))), (b, 1)), jnp.int32)
    return arrays, options


def value_and_gradients(arrays, options, implementation):
    query, key, value, toward = arrays

    def program(query, key, value, toward, options):
        out, pull = jax.vjp(
            lambda q, k, v: attention(q, k, v, **options, causal=causal, implementation=implementation),
            query,
            key,
            value,
        )
        return out, *pull(toward)

    options = dict(options)
    causal = options.pop("causal")
    return jax.jit(program)(query, key, value, toward, options)


def assert_equal_to_reference(case, implementation):
    arrays, options = make_inputs(case)
    exact = [x.astype(jnp.float32) for x in arrays]
    expected = value_and_gradients(exact, options, "reference")
    found = value_and_gradients(arrays, options, implementation)
    # bfloat16 is compared with the same numbers in float32; its step is 2^-8.
    share = 3e-2 if case.dtype == "bfloat16" else 2e-5
    for name, want, have in zip(("out", "query", "key", "value"), expected, found, strict=True):
        assert have.dtype == case.dtype
        scale = max(float(jnp.abs(want).max()), 1e-3)
        np.testing.assert_allclose(
            np.asarray(have, np.float32), want, atol=share * scale, rtol=0, err_msg=name
        )


@pytest.mark.parametrize("case", cases_of("chunked"))
def test_chunked_equals_the_reference(case):
    assert_equal_to_reference(case, SMALL_BLOCKS)


@pytest.mark.parametrize("case", cases_of("pallas_tpu"))
def test_our_tpu_kernels_equal_the_reference(case):
    assert_equal_to_reference(case, INTERPRETED)


LONG = (
    Case("causal", heads=(2, 1), lengths=(1300, 1300), causal=True),
    Case("prefill goes on", heads=(2, 1), lengths=(600, 2100), causal=True, offsets=(1490,)),
    Case(
        "segments",
        heads=(2, 1),
        head_dim=72,
        lengths=(1500, 2500),
        segments=((1100, 10, 300), (200, 1000, 1200)),
    ),
)


@pytest.mark.parametrize("case", [*LONG[1:], pytest.param(LONG[0], marks=pytest.mark.slow)], ids=str)
def test_our_tpu_kernels_over_several_of_their_blocks_equal_the_reference(case):
    """With the block sizes that are compiled; lengths need at least two blocks of queries and of keys."""
    assert_equal_to_reference(case, INTERPRETED)


def test_chunked_with_its_own_blocks_equals_the_reference():
    assert_equal_to_reference(
        Case("", heads=(2, 1), lengths=(600, 1100), causal=True, offsets=(490,)), "chunked"
    )


def served_by_splash(case: Case) -> bool:
    (h, k), (s, t) = case.heads, case.lengths
    offset, segments = case.offsets is not None, case.segments is not None
    task = AttentionTask("tpu", 1, s, t, h, k, case.head_dim, case.dtype, case.causal, segments, offset)
    return SPLASH.lacks(task) is None


@pytest.mark.slow
@pytest.mark.parametrize("case", list(filter(served_by_splash, [*CASES, *LONG])), ids=str)
def test_splash_equals_the_reference(case):
    assert_equal_to_reference(case, SPLASH)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "case", [case for case in (*CASES, *LONG) if case.offsets is None and case.head_dim >= 64], ids=str
)
def test_cudnn_equals_the_reference(case):
    assert_equal_to_reference(dataclasses.replace(case, dtype="bfloat16"), CUDNN)


@pytest.mark.tpu
@pytest.mark.parametrize("implementation", ["pallas_tpu", "chunked"])
@pytest.mark.parametrize("case", [*CASES, *LONG], ids=str)
def test_compiled_kernels_equal_the_reference(case, implementation):
    with jax.default_matmul_precision("highest"):
        assert_equal_to_reference(case, implementation)


@pytest.mark.parametrize(
    "implementation",
    ["reference", SMALL_BLOCKS, INTERPRETED, pytest.param(SPLASH, marks=pytest.mark.slow)],
    ids=["reference", "chunked", "pallas_tpu", "splash"],
)
def test_padding_gives_zeros_and_zero_gradients(implementation):
    case = Case("", batch=2, segments=((70,), (70,)))
    arrays, options = make_inputs(case)
    only_padding = {name: options[name].at[1].set(0) for name in ("query_segments", "key_segments")}
    results = value_and_gradients(arrays, {**options, **only_padding}, implementation)
    for result in results:
        assert np.isfinite(result).all()
        assert not result[1].any() and not result[0, 70:].any()
        assert result[0, :70].any()


def test_keys_of_another_segment_do_not_matter():
    arrays, options = make_inputs(Case("", segments=((60, 90), (60, 90))))
    query, key, value, _ = arrays
    program = jax.jit(functools.partial(attention, **options, implementation=SMALL_BLOCKS))
    out = program(query, key, value)
    changed = program(query, key.at[:, 60:].set(7.0), value.at[:, 60:].set(9.0))
    np.testing.assert_array_equal(out[:, :60], changed[:, :60])
    assert np.abs(out[:, 60:] - changed[:, 60:]).max() > 0.1


@pytest.mark.parametrize(
    "implementation",
    [SMALL_BLOCKS, pytest.param(INTERPRETED, marks=pytest.mark.slow)],
    ids=["chunked", "pallas_tpu"],
)
@pytest.mark.parametrize(
    ("heads", "batch", "sizes"),
    [
        ((4, 4), 2, {"data": 2, "fsdp": 1, "tensor": 4}),
        ((8, 2), 2, {"data": 1, "fsdp": 2, "tensor": 4}),  # each device's heads read one key head
        ((3, 1), 2, {"data": 2, "fsdp": 1, "tensor": 4}),  # queries divide by length
        ((3, 3), 3, {"data": 2, "fsdp": 2, "tensor": 2}),  # rows do not divide
    ],
    ids=["heads", "heads of one", "length", "rows"],
)
def test_a_mesh_changes_nothing(heads, batch, sizes, implementation, rules=ShardingRules()):
    segments = ((70, 70), (70, 70))
    case = Case("", heads=heads, batch=batch, head_dim=16, causal=True, segments=segments, lengths=(148, 148))
    arrays, options = make_inputs(case)
    expected = value_and_gradients(arrays, options, "reference")
    with jax.set_mesh(make_mesh(sizes)), use_rules(rules):
        found = value_and_gradients(arrays, options, implementation)
    for want, have in zip(expected, found, strict=True):
        np.testing.assert_allclose(have, want, atol=2e-5 * float(jnp.abs(want).max()))


def test_tokens_divided_between_layers_change_nothing():
    sizes = {"data": 1, "fsdp": 2, "tensor": 4}
    test_a_mesh_changes_nothing((4, 4), 2, sizes, SMALL_BLOCKS, ShardingRules(length=("tensor",)))
