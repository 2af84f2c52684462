"""The visual tokenizer: sizes, positions, codes, gradients through the codes, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters, with_parameters
from mammoth_jax.models.mammothtok import (
    CNNDecoderConfig,
    EncoderConfig,
    MammothTok,
    MammothTokConfig,
    RotationTrick,
    StraightThrough,
    ViTDecoderConfig,
    to_uint8,
)
from mammoth_jax.models.mammothtok.cnn_decoder import AdaptiveGroupNorm
from mammoth_jax.models.mammothtok.encoder import PatchSequence, patch_sequence, sincos_positions
from mammoth_jax.models.mammothtok.vit_decoder import ViTDecoder, rotary_grid
from tests.tiny_model import random_weights

PATCH_8 = MammothTokConfig(
    encoder=EncoderConfig(patch_size=8, width=16, mlp_width=24, num_layers=2, num_heads=2),
    codebook_size=32,
    code_dim=4,
    z_channels=12,
    vit=ViTDecoderConfig(width=16, num_layers=3, num_heads=2, distill_depth=2, semantic_width=6),
    cnn=CNNDecoderConfig(channels=4, multipliers=(1, 1, 2, 2), num_res_blocks=1, norm_groups=4, upsampling=8),
)
PATCH_14 = dataclasses.replace(
    PATCH_8,
    encoder=dataclasses.replace(PATCH_8.encoder, patch_size=14),
    cnn=CNNDecoderConfig(
        channels=4, multipliers=(1, 1, 1, 2, 2), num_res_blocks=1, norm_groups=4, upsampling=14
    ),
)


@pytest.fixture(scope="module")
def model() -> MammothTok:
    return initialize(lambda: MammothTok(PATCH_8), 0, single_device_mesh())


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("config", "pixels"), [(PATCH_8, 8), (PATCH_14, 14)])
def test_non_square_pictures_become_grids_and_pictures_of_the_same_size(config, pixels):
    tok = abstract(lambda: MammothTok(config))
    picture = jax.ShapeDtypeStruct((2, 3 * pixels, 5 * pixels, 3), jnp.float32)
    ids = jax.eval_shape(lambda m, x: m.encode(x), tok, picture)
    assert (ids.shape, ids.dtype) == ((2, 3, 5), jnp.int32)
    decoded = jax.eval_shape(lambda m, x: m.decode(x, jnp.bfloat16), tok, ids)
    assert (decoded.shape, decoded.dtype) == (picture.shape, jnp.float32)


def test_fractional_step_is_there_only_where_the_upsampling_is_not_a_power_of_two():
    def names(config: MammothTokConfig) -> set[str]:
        tok = abstract(lambda: MammothTok(config))
        z = jax.ShapeDtypeStruct((1, 2, 2, config.z_channels), jnp.float32)
        return set(jax.eval_shape(lambda m, x: dict(m.decoder.cnn.stages(x)), tok, z))

    assert "fractional" in names(PATCH_14)
    assert "fractional" not in names(PATCH_8)


def test_pictures_of_a_batch_do_not_depend_on_each_other(model):
    ids = jnp.asarray(np.random.default_rng(1).integers(0, 32, (2, 2, 3)), jnp.int32)
    draw = jax.jit(lambda m, x: m.decode(x))
    first, second = draw(model, ids), draw(model, ids.at[1].set(ids[1, ::-1]))
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    assert np.abs(first[1] - second[1]).max() > 1e-3


def test_encoding_chooses_the_nearest_code_on_the_sphere(model):
    z = random(2, 3, 4, 4)
    codes = np.asarray(model.quantizer.codebook[...])
    unit = np.asarray(z) / np.linalg.norm(z, axis=-1, keepdims=True)
    codes = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    want = np.argmin(((unit[..., None, :] - codes) ** 2).sum(-1), axis=-1)
    np.testing.assert_array_equal(model.quantizer.encode(z), want)
    np.testing.assert_allclose(model.quantizer.lookup(jnp.asarray(want)), codes[want], atol=1e-6)


def test_equal_distances_go_to_the_lower_id(model):
    codes = jnp.asarray(np.tile(np.eye(4, dtype=np.float32), (8, 1)))
    quantizer = with_parameters(model.quantizer, {"codebook": codes})
    np.testing.assert_array_equal(quantizer.encode(jnp.eye(4) * 3), [0, 1, 2, 3])


@pytest.mark.parametrize("estimator", [RotationTrick(), StraightThrough()])
def test_estimators_give_the_code_in_value(estimator):
    z, codes = random(6, 4), random(6, 4, seed=1)
    np.testing.assert_allclose(estimator(z, codes), codes, rtol=1e-4, atol=1e-5)


def test_straight_through_gradient_is_the_identity():
    z, codes, weights = random(6, 4), random(6, 4, seed=1), random(6, 4, seed=2)
    grad = jax.grad(lambda z: jnp.sum(StraightThrough()(z, codes) * weights))(z)
    np.testing.assert_array_equal(grad, weights)


def test_rotation_keeps_lengths_and_the_angle_to_the_value():
    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    z, codes = unit(random(6, 4)), unit(random(6, 4, seed=1))
    step = random(6, 4, seed=2)
    step = (
        step - jnp.sum(step * z, -1, keepdims=True) * z
    )  # along the sphere, where the normalisation is the identity
    _, moved = jax.jvp(lambda z: RotationTrick()(z, codes), (z,), (step,))
    np.testing.assert_allclose(jnp.linalg.norm(moved, axis=-1), jnp.linalg.norm(step, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(jnp.sum(moved * codes, -1), 0, atol=1e-5)


def test_no_gradient_of_the_output_reaches_the_codebook(model):
    z = random(1, 2, 3, 4)
    grad = jax.grad(lambda q: jnp.sum(q(z).output ** 3))(model.quantizer)
    assert not np.any(named_parameters(grad)["codebook"][...])


def test_encoder_positions_hold_the_column_first_then_the_row():
    table = np.asarray(sincos_positions(2, 3, 8)).reshape(2, 3, 8)
    np.testing.assert_allclose(table[1, 2, :4], [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)], atol=1e-6)
    np.testing.assert_allclose(table[1, 2, 4:], [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)], atol=1e-6)


def test_decoder_rotation_turns_the_first_half_by_the_row():
    cos, sin = (np.asarray(x).reshape(2, 3, 4) for x in rotary_grid(2, 3, 8))
    np.testing.assert_allclose(cos[1, 2], np.cos([1, 0.01, 2, 0.02]), atol=1e-6)
    np.testing.assert_allclose(sin[1, 2], np.sin([1, 0.01, 2, 0.02]), atol=1e-6)


def test_semantic_head_reads_the_blocks_below_it_only():
    vit = initialize(lambda: ViTDecoder(PATCH_8.vit, 12), 0, single_device_mesh())
    values = {name: p[...] for name, p in named_parameters(vit).items()}
    z = random(1, 2, 3, 12)
    semantic = jax.jit(lambda v, z: v.semantic(z))

    def changed(segment: str) -> bool:
        moved = {n: x + 0.5 * random(*x.shape) if n.startswith(segment) else x for n, x in values.items()}
        return not np.allclose(semantic(with_parameters(vit, moved), z), semantic(vit, z), atol=1e-6)

    assert changed("lower.")
    assert not changed("upper.")


def test_adaptive_norm_follows_mean_and_unbiased_deviation_of_the_style():
    norm = initialize(lambda: AdaptiveGroupNorm(3, 4, 2), 0, single_device_mesh())
    style, x = random(1, 2, 3, 3), random(1, 4, 4, 4, seed=1)
    cells = np.asarray(style).reshape(6, 3)
    scale = np.sqrt(cells.var(0, ddof=1) + 1e-6) @ np.asarray(norm.scale.kernel[...]) + norm.scale.bias[...]
    shift = cells.mean(0) @ np.asarray(norm.shift.kernel[...]) + norm.shift.bias[...]
    groups = np.asarray(x).reshape(16, 2, 2)
    plain = (groups - groups.mean((0, 2), keepdims=True)) / np.sqrt(groups.var((0, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(norm(x, style), plain.reshape(1, 4, 4, 4) * scale + shift, atol=1e-5)


def test_a_style_of_one_cell_has_no_deviation_and_stays_finite():
    norm = initialize(lambda: AdaptiveGroupNorm(3, 4, 2), 0, single_device_mesh())
    assert np.isfinite(norm(random(1, 2, 2, 4), random(1, 1, 1, 3))).all()


def test_pixels_are_clamped_and_truncated():
    x = jnp.asarray([-2.0, -1.0, 0.0, 0.011, 1.0, 3.0])
    np.testing.assert_array_equal(to_uint8(x), [0, 0, 128, 129, 255, 255])


def test_a_codebook_alone_is_a_tokenizer_that_only_looks_up():
    tok = initialize(
        lambda: MammothTok(PATCH_8, parts=frozenset({"mammothtok_codebook"})),
        0,
        single_device_mesh(),
    )
    assert set(named_parameters(tok)) == {"quantizer.codebook"}
    assert tok.quantizer.lookup(jnp.asarray([3, 1])).shape == (2, 4)
    with pytest.raises(InputError, match="decoder and codebook"):
        tok.decode(jnp.zeros((1, 2, 2), jnp.int32))
    with pytest.raises(InputError, match="encoder and codebook"):
        tok.encode(jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("shape", [(12, 8), (8, 7), (0, 8)])
def test_pictures_that_patches_do_not_tile_are_refused(model, shape):
    with pytest.raises(InputError, match="multiples of 8"):
        model.encode(jnp.zeros((1, *shape, 3)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cnn": {"upsampling": 13}}, "upsampling 13"),
        ({"cnn": {"upsampling": 8}}, "upsampling 8"),
        ({"cnn": {"channels": 48}}, "norm_groups 32"),
        ({"vit": {"distill_depth": 0}}, "distill_depth 0"),
        ({"vit": {"num_heads": 7}}, "num_heads 7"),
        ({"vit": {"width": 96}}, "multiple of 4"),
        ({"encoder": {"num_heads": 7}}, "num_heads 7"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        decode(MammothTokConfig, data)


def test_configuration_survives_plain_data():
    config = dataclasses.replace(PATCH_14, estimator=StraightThrough(), entropy_ratio=0.1)
    assert decode(MammothTokConfig, encode(config)) == config


def test_equal_tokenizers_share_one_program(model):
    other = initialize(lambda: MammothTok(PATCH_8), 1, single_device_mesh())
    look_up = jax.jit(lambda m, ids: m.quantizer.lookup(ids))
    for tok in (model, other):
        look_up(tok, jnp.zeros((1, 2), jnp.int32))
    assert look_up._cache_size() == 1
    assert jax.tree.structure(model) == jax.tree.structure(other)


GRIDS = [(2, 3), (5, 1), (3, 3)]


@pytest.fixture(scope="module")
def spread() -> MammothTok:
    """Weights large enough for attention to tell patches apart."""
    return random_weights(abstract(lambda: MammothTok(PATCH_8)), 0, single_device_mesh())


@jax.jit
def read(tok: MammothTok, sequence: PatchSequence) -> tuple[jax.Array, jax.Array]:
    assert tok.encoder is not None
    return tok.encoder.read(sequence), tok.encode_patches(sequence)


@pytest.mark.parametrize("grid", [GRIDS[0], *(pytest.param(g, marks=pytest.mark.slow) for g in GRIDS[1:])])
def test_a_padded_sequence_of_patches_gives_what_the_picture_gives(spread, grid):
    picture = np.asarray(random(8 * grid[0], 8 * grid[1], 3))
    sequence = patch_sequence(picture, 8, 20)
    vectors, ids = read(spread, sequence)
    assert spread.encoder is not None
    count, exact = grid[0] * grid[1], spread.encoder(jnp.asarray(picture)[None])
    np.testing.assert_allclose(vectors[:, :count], exact.reshape(1, count, -1), atol=1e-5)
    np.testing.assert_array_equal(ids[:, :count], spread.encode(picture[None]).reshape(1, count))
    noisy = dataclasses.replace(sequence, patches=np.where(sequence.segments[..., None], sequence.patches, 9))
    np.testing.assert_array_equal(read(spread, noisy)[0][:, :count], vectors[:, :count])


def test_pictures_in_one_sequence_do_not_see_each_other(spread):
    parts = [patch_sequence(np.asarray(random(8 * r, 8 * c, 3, seed=r)), 8, 20) for r, c in GRIDS]
    alone = np.concatenate(
        [read(spread, part)[0][:, : r * c] for part, (r, c) in zip(parts, GRIDS, strict=True)], axis=1
    )
    number = np.concatenate([i * part.segments for i, part in enumerate(parts, 1)], axis=1)
    joined = [
        np.concatenate(values, axis=1) for values in zip(*((p.patches, p.cells) for p in parts), strict=True)
    ]
    packed = PatchSequence(*(x[:, number[0] > 0] for x in joined), segments=number[number > 0][None])
    np.testing.assert_allclose(read(spread, packed)[0], alone, atol=1e-5)
    one = dataclasses.replace(packed, segments=np.ones_like(packed.segments))
    assert np.abs(read(spread, one)[0] - alone).max() > 1e-2


def test_a_picture_longer_than_its_sequence_is_refused():
    with pytest.raises(InputError, match="2x3 patches: at most 4 fit"):
        patch_sequence(np.zeros((16, 24, 3), np.float32), 8, 4)
