"""LPIPS, the FID's Inception and AIMv2 give what their PyTorch originals gave at the same random weights.

The originals (``lpips``, ``pytorch-fid``, ``transformers``) were recorded by
``scripts/record_loss_network_vectors.py``; weights are drawn again by name.
"""

import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_convert import aimv2
from checkpoint_convert.load import load_arrays
from checkpoint_convert.published import inception_rules, lpips_rules, vgg_rules
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, cast
from mammoth_jax.models.aimv2 import AnyGrid, SemanticEncoder, TrainedGrid
from mammoth_jax.models.inception import Inception
from mammoth_jax.models.lpips import LPIPS, unit_channels
from mammoth_jax.models.mammothtok.config import EncoderConfig
from tests.published_files import drawn

FOLDER = Path(__file__).parents[1] / "vectors" / "loss_networks"
CASE = json.loads((FOLDER / "case.json").read_text())


def recorded(name):
    return load_file(FOLDER / f"{name}.safetensors")


def network(build, rules, name):
    """The module at the recorded weights, after checking that they are drawn as they were."""
    module = abstract(build)
    tensors = drawn(rules, module)
    sums = {name: zlib.crc32(np.ascontiguousarray(x).tobytes()) for name, x in tensors.items()}
    assert len(sums) == CASE["tensors"][name]
    assert zlib.crc32(json.dumps(sums, sort_keys=True).encode()) == CASE["weights"][name]
    return load_arrays(module, rules, tensors, name)


def picture(x):
    return jnp.asarray(x, jnp.float32) / 127.5 - 1


def close(ours, theirs, tolerance=1e-5):
    """Relative to the largest value."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.fixture(scope="module")
def lpips():
    return network(LPIPS, [*vgg_rules(), *lpips_rules()], "lpips")


@pytest.fixture(scope="module")
def inception():
    return network(Inception, inception_rules(), "inception")


def test_lpips_and_its_gradient_are_the_originals(lpips):
    case = recorded("lpips")
    a, b = picture(case["a"]), picture(case["b"])

    def summed(a, b):
        distance = lpips(a, b)
        return jnp.sum(distance), distance

    gradient, distance = jax.jit(jax.grad(summed, has_aux=True))(a, b)
    np.testing.assert_allclose(distance, case["distance"], rtol=1e-5)
    close(gradient[:1], case["gradient"], 3e-5)  # rounding of two passes through 13 layers; 1e-5 was measured


@pytest.mark.slow
def test_the_gradient_of_lpips_agrees_with_finite_differences_in_float64(lpips):
    with jax.enable_x64(True):
        model = cast(lpips, jnp.float64)
        rng = np.random.default_rng(0)
        a, b, way = (jnp.asarray(rng.uniform(-1, 1, (1, 16, 16, 3))) for _ in range(3))
        run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(model(x, b))))
        step = 1e-6
        (up, _), (down, _), (_, gradient) = run(a + step * way), run(a - step * way), run(a)
        assert gradient.dtype == jnp.float64
        np.testing.assert_allclose(jnp.sum(gradient * way), (up - down) / (2 * step), rtol=1e-6)


def test_the_five_activations_are_the_originals(lpips):
    case = recorded("lpips")
    taps = jax.jit(lambda model, x: model.features(x))(lpips, picture(case["a"]))
    for i, tap in enumerate(taps):
        close(jnp.mean(tap, (1, 2)), case[f"tap{i}"])
    close(taps[-1][:1], case["last"])


def test_cells_without_any_activation_have_a_gradient_of_zero():
    """A length of 0 has no derivative; one such cell must not spoil the gradient of the whole picture."""
    x = jnp.zeros((1, 1, 2, 3)).at[0, 0, 1].set(jnp.array([3.0, 0.0, 4.0]))
    weight = jnp.arange(6.0).reshape(1, 1, 2, 3)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(weight * unit_channels(x)))(x)
    assert value == pytest.approx(3 * 0.6 + 5 * 0.8)
    np.testing.assert_array_equal(gradient[0, 0, 0], 0)
    assert np.all(np.isfinite(gradient)) and np.any(gradient[0, 0, 1])


def test_lpips_refuses_pictures_that_its_last_stage_cannot_see():
    with pytest.raises(InputError, match=r"15x40 pixels.*at least 16"):
        jax.eval_shape(lambda m, x: m(x, x), abstract(LPIPS), jnp.zeros((1, 40, 15, 3)))


def test_the_stages_of_inception_are_the_originals(inception):
    case = recorded("inception")
    stages = jax.jit(lambda model, x: model.stages(x))(inception, picture(case["small"]))
    for i, stage in enumerate(stages):
        close(stage if stage.ndim == 2 else jnp.mean(stage, (1, 2)), case[f"stage{i}"].reshape(1, -1))


@pytest.mark.slow
def test_features_of_pictures_of_any_size_are_the_originals(inception):
    case = recorded("inception")
    run = jax.jit(lambda model, x: model(x))
    close(run(inception, picture(case["sized"])), case["features"])
    large = np.tile(case["small"], (1, 3, 3, 1))[:, :320, :400]
    close(run(inception, picture(large)), case["shrunk"])


SIZES = EncoderConfig(
    patch_size=CASE["aimv2"]["patch_size"],
    width=CASE["aimv2"]["hidden_size"],
    mlp_width=CASE["aimv2"]["intermediate_size"],
    num_layers=CASE["aimv2"]["num_hidden_layers"],
    num_heads=CASE["aimv2"]["num_attention_heads"],
)
SIDE = CASE["aimv2"]["image_size"] // SIZES.patch_size
GRIDS = {"aimv2_native": AnyGrid(), "aimv2_fixed": TrainedGrid(SIDE)}


def tower(name, pixels_per_token=SIZES.patch_size):
    rules = aimv2.rules("aimv2", SIZES)
    if name == "aimv2_fixed":
        rules.append(aimv2.position_rule("aimv2", SIDE**2, SIZES.width))
    return network(lambda: SemanticEncoder(SIZES, pixels_per_token, GRIDS[name]), rules, name)


@pytest.mark.parametrize("name", GRIDS)
def test_aimv2_is_the_original(name):
    case = recorded(name)
    features = jax.jit(lambda model, x: model.features(x))(tower(name), picture(case["picture"]))
    close(features, case["features"])


@pytest.mark.parametrize(("name", "grid"), [("aimv2_native", (2, 4)), ("aimv2_fixed", (3, 3))])
def test_the_teacher_sees_a_patch_a_token_or_its_trained_grid(name, grid):
    features = jax.eval_shape(
        lambda m, x: m(x), tower(name, pixels_per_token=8), jnp.zeros((3, 16, 32, 3), jnp.float32)
    )
    assert features.shape == (3, *grid, SIZES.width)


def test_the_teacher_prepares_pictures_as_published():
    """Where nothing is to be resized: CLIP's mean and deviation, for pictures in [0, 1]."""
    x = picture(recorded("aimv2_native")["picture"])
    model = tower("aimv2_native")
    mean, std = (
        jnp.array([0.48145466, 0.4578275, 0.40821073]),
        jnp.array([0.26862954, 0.26130258, 0.27577711]),
    )
    expected = model.features((x / 2 + 0.5 - mean) / std)
    close(model(x).reshape(expected.shape), expected)


def test_a_plain_picture_looks_the_same_at_any_size():
    """Resizing to the teacher's patches keeps the colour, to the border."""
    model, colour = tower("aimv2_fixed", 8), jnp.array([0.3, -0.9, 1.0])
    run = jax.jit(lambda m, x: m(x))
    at = {n: run(model, jnp.broadcast_to(colour, (1, n, 2 * n, 3))) for n in (8, 48)}
    exact = run(tower("aimv2_fixed"), jnp.broadcast_to(colour, (1, 21, 21, 3)))
    for features in at.values():
        close(features, exact)


def test_the_teacher_refuses_pictures_that_are_no_whole_tokens():
    with pytest.raises(InputError, match=r"30x16 pixels.*multiples of the 8 pixels"):
        jax.eval_shape(lambda m, x: m(x), tower("aimv2_native", 8), jnp.zeros((1, 16, 30, 3)))
