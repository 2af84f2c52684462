import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, cast, initialize, named_parameters
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.positions import reference_offsets, rope_factors
from mammoth_jax.models.dit.transformer import DiT, References
from tests.tiny_dit import CONFIG, condition, models, row

SIZES = jnp.array([[2, 3], [4, 1]])
TIMES = jnp.array([0.2, 0.7])


@pytest.fixture(scope="module")
def parts():
    return models()


def inputs(num_tokens=8):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((2, num_tokens, CONFIG.patch_values)), jnp.float32)


def references(sizes, num_tokens=4):
    rng = np.random.default_rng(1)
    shape = (len(sizes), len(sizes[0]), num_tokens, CONFIG.patch_values)
    return References(jnp.asarray(rng.standard_normal(shape), jnp.float32), jnp.asarray(sizes))


@functools.partial(jax.jit, static_argnames="faults")
def velocity(parts, features, x, times, sizes, refs=None, faults=NO_FAULTS):
    context = encode_condition(*parts, features, faults=faults)
    return parts[0](x, times, context, sizes, refs, faults=faults)


def test_a_row_is_the_same_alone_unpadded_and_in_a_batch_of_other_sizes_and_text_lengths(parts):
    features = condition([6, 2], [5, 3])
    refs = references([[[2, 2], [1, 3]], [[1, 2], [0, 0]]])
    x = inputs()
    both = velocity(parts, features, x, TIMES, SIZES, refs)
    one = row(
        (features, x, TIMES, SIZES, refs), 1
    )  # 4 tokens, 2 of text, 3 features of visual tokens, 1 reference
    text, mask, image, image_mask = one[0].text, one[0].text_mask, one[0].image, one[0].image_mask
    alone = Condition(text[:, :2], mask[:, :2], image[:, :3], image_mask[:, :3])
    fewer = References(one[4].patches[:, :1, :2], one[4].sizes[:, :1])
    got = velocity(parts, alone, one[1][:, :4], one[2], one[3], fewer)
    np.testing.assert_allclose(got[0], both[1, :4], atol=2e-5)


def test_absent_references_are_as_none_and_present_ones_matter(parts):
    features, x = condition([3, 2]), inputs()
    none = velocity(parts, features, x, TIMES, SIZES)
    absent = velocity(parts, features, x, TIMES, SIZES, references([[[0, 0]], [[0, 0]]]))
    mixed = velocity(parts, features, x, TIMES, SIZES, references([[[2, 2]], [[0, 0]]]))
    np.testing.assert_allclose(absent, none, atol=1e-5)
    np.testing.assert_allclose(mixed[1], none[1], atol=1e-5)
    assert np.abs(mixed[0, :6] - none[0, :6]).max() > 1e-3


def test_more_references_than_embeddings_are_refused(parts):
    refs = references([[[1, 1]] * 6] * 2)
    with pytest.raises(InputError, match="6 reference pictures"):
        velocity(parts, condition([3, 2]), inputs(), TIMES, SIZES, refs)


def test_padded_context_fault_changes_only_rows_with_a_shorter_text(parts):
    features, x = condition([6, 3], [5, 5]), inputs()
    right = velocity(parts, features, x, TIMES, SIZES)
    faulty = velocity(parts, features, x, TIMES, SIZES, faults=ReleaseFaults(padded_context=True))
    np.testing.assert_allclose(faulty[0, :6], right[0, :6], atol=1e-5)
    assert np.abs(faulty[1, :4] - right[1, :4]).max() > 1e-3


@pytest.mark.slow
def test_rounded_time_fault_rounds_to_the_weights_format(parts):
    low = tuple(cast(part, jnp.bfloat16) for part in parts)
    features, x = condition([3, 2], [2, 2]), inputs()
    rounded = TIMES.astype(jnp.bfloat16).astype(jnp.float32)
    right = velocity(low, features, x, TIMES, SIZES)
    faulty = velocity(low, features, x, TIMES, SIZES, faults=ReleaseFaults(rounded_time=True))
    np.testing.assert_allclose(faulty, velocity(low, features, x, rounded, SIZES), atol=1e-3)
    assert np.abs(faulty - right).max() > 3e-3


def test_the_network_runs_in_the_weights_format_and_returns_float32(parts):
    low = tuple(cast(part, jnp.bfloat16) for part in parts)
    features = condition([3, 2], [2, 2])
    out, exact = (np.asarray(velocity(p, features, inputs(), TIMES, SIZES)) for p in (low, parts))
    assert out.dtype == np.float32 and out.any()
    assert np.abs(out - exact).mean() < 0.1 * np.abs(exact).mean()


def test_rope_factors_hold_float64_accuracy_at_far_positions():
    positions = np.stack(np.meshgrid([0, 1, 1000, 20000], [0, 511, 4095], indexing="ij"), -1).reshape(
        1, -1, 2
    )
    cos, sin = rope_factors(jnp.asarray(positions), (8, 6))
    angles = np.concatenate(
        [positions[..., i, None] * 10000.0 ** (-np.arange(0, d, 2) / d) for i, d in enumerate((8, 6))], -1
    )
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-6)


def test_references_move_the_target_by_their_longer_sides():
    offsets, target = reference_offsets(jnp.array([7]), jnp.array([[[2, 5], [4, 3], [0, 0]]]))
    assert offsets.tolist() == [[7, 12, 16]] and target.tolist() == [16]


def test_fresh_weights_give_zero_velocity_as_the_release_initialises():
    dit = initialize(lambda: DiT(CONFIG), 0, single_device_mesh())
    weights = named_parameters(dit)
    zero = [n for n, p in weights.items() if not np.any(p[...])]
    assert {"output.proj.kernel", "layers.modulation.kernel", "noise_refiner.modulation.kernel"} <= set(zero)
    query = np.asarray(weights["layers.attention.query.kernel"][...])
    assert abs(query.max() - (6 / (16 + 16)) ** 0.5) < 0.02  # xavier uniform over [out, in]
    assert abs(np.std(weights["time.fc2.kernel"][...]) - 0.02) < 0.005
    np.testing.assert_array_equal(velocity((dit, None), condition([3, 2]), inputs(), TIMES, SIZES), 0)


def test_every_weight_names_its_axes():
    dit = abstract(lambda: DiT(CONFIG))
    weights = named_parameters(dit)
    assert all(len(p.axes) == len(p.shape) for p in weights.values())
    assert weights["layers.attention.query.kernel"].axes == ("layers", "embed", "heads", None)
    assert weights["layers.attention.key.kernel"].axes == ("layers", "embed", "kv_heads", None)
    assert weights["layers.ffn.gate.kernel"].axes == ("layers", "embed", "mlp")


def test_the_program_does_not_grow_with_depth():
    def size(layers):
        dit = abstract(lambda: DiT(dataclasses.replace(CONFIG, num_layers=layers)))
        args = (inputs(), TIMES, SIZES)
        trace = lambda dit, x, t, s: dit(x, t, encode_condition(dit, None, condition([3, 2])), s)  # noqa: E731
        return len(str(jax.make_jaxpr(trace)(dit, *args)).splitlines())

    assert size(2) == size(12)


@pytest.mark.parametrize(
    "change",
    [{"axes_dim_rope": (4, 2, 4)}, {"axes_dim_rope": (5, 1, 2)}, {"num_kv_heads": 3}, {"num_layers": 0}],
)
def test_inconsistent_configurations_are_refused(change):
    with pytest.raises(ValueError):
        dataclasses.replace(CONFIG, **change)


def test_feed_forward_width_is_rounded_up():
    assert (
        DiTConfig(1, hidden_size=2520, num_heads=21, num_kv_heads=7, axes_dim_rope=(40, 40, 40)).ffn_width
        == 10240
    )
    assert CONFIG.ffn_width == 32
