"""The image autoencoder: sizes, scales, posterior, tiled decoding, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.models.vae import VAE, Posterior, Tiling, VAEConfig, postprocess
from mammoth_jax.models.vae.blocks import DownBlock
from mammoth_jax.models.vae.tiling import decode_tiled

FACTOR_4 = VAEConfig(latent_channels=4, block_out_channels=(4, 4, 8), layers_per_block=1, norm_groups=2)
FACTOR_8 = VAEConfig(
    latent_channels=4, block_out_channels=(4, 4, 8, 8), layers_per_block=2, norm_groups=2, mid_attention=False
)


@pytest.fixture(scope="module")
def vae() -> VAE:
    return initialize(lambda: VAE(FACTOR_4), 0, single_device_mesh())


def noise(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("config", "factor"), [(FACTOR_4, 4), (FACTOR_8, 8)])
def test_the_factor_follows_the_number_of_blocks(config, factor):
    model = abstract(lambda: VAE(config))
    assert config.factor == factor
    picture = jax.ShapeDtypeStruct((2, 3 * factor, 5 * factor, 3), jnp.bfloat16)
    found = jax.eval_shape(lambda m, x: m.encode(x), model, picture)
    assert found.mean.shape == found.logvar.shape == (2, 3, 5, 4)
    decoded = jax.eval_shape(lambda m, x: m.decode(x, dtype=jnp.bfloat16), model, found.mean)
    assert (decoded.shape, decoded.dtype) == (picture.shape, jnp.float32)


def test_attention_is_there_only_if_configured():
    held = [
        any("attention" in name for name in named_parameters(abstract(lambda c=c: VAE(c))))
        for c in (FACTOR_4, FACTOR_8)
    ]
    assert held == [True, False]


def test_scaling_and_unscaling_are_inverse_and_in_float32(vae):
    z = noise(1, 2, 3, 4).astype(jnp.bfloat16)
    scaled = vae.scale_latents(z)
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, (np.asarray(z, np.float32) - 0.1159) * 0.3611, atol=1e-6)
    np.testing.assert_allclose(vae.unscale_latents(scaled), np.asarray(z, np.float32), atol=1e-5)


def test_posterior_sample_has_its_mean_and_deviation():
    posterior = Posterior(jnp.asarray([1.0, -2.0]), jnp.log(jnp.asarray([4.0, 0.25])))
    np.testing.assert_allclose(posterior.sample(jnp.zeros(2)), [1, -2])
    np.testing.assert_allclose(posterior.sample(jnp.ones(2)), [3, -1.5], rtol=1e-6)


def test_log_variance_is_clamped(vae):
    picture = 1e6 * noise(1, 4, 4, 3)
    logvar = jax.jit(lambda m, x: m.encode(x))(vae, picture).logvar
    assert float(logvar.min()) >= -30
    assert float(logvar.max()) <= 20


def test_downsampling_pads_on_the_right_and_at_the_bottom():
    block = initialize(lambda: DownBlock(2, 2, 1, 1, last=False), 0, single_device_mesh())
    x = noise(1, 4, 4, 2)
    kernel = np.asarray(block.downsample.kernel[...])
    padded = np.pad(np.asarray(x)[0], ((0, 1), (0, 1), (0, 0)))
    want = np.einsum("rci,rcio->o", padded[2:5, 2:5], kernel) + block.downsample.bias[...]
    np.testing.assert_allclose(block.downsample(x)[0, 1, 1], want, atol=1e-5)


def test_pixels_are_clamped_and_rounded_half_to_even():
    x = jnp.asarray([-3.0, -1.0, 0.0, 1.0, 3.0, 2 * 0.5 / 255 - 1, 2 * 1.5 / 255 - 1])
    np.testing.assert_array_equal(postprocess(x)[:5], [0, 0, 128, 255, 255])
    np.testing.assert_array_equal(
        postprocess(jnp.asarray([2 * 100.4 / 255 - 1, 2 * 100.6 / 255 - 1])), [100, 101]
    )


def local_decoder(x: jax.Array) -> jax.Array:
    """Doubles the sides and averages 3x3 pixels, with zeros outside: a decoder that sees one cell around it."""
    x = jnp.repeat(jnp.repeat(x[..., :3], 2, axis=1), 2, axis=2)
    kernel = jnp.ones((3, 3, 3, 3)) / 27
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (21, 13), (5, 30), (16, 17)])
def test_tiles_of_a_local_decoder_join_without_seams(size):
    latents = noise(2, *size, 4)
    tiled = decode_tiled(local_decoder, latents, 2, Tiling(max_cells=1, tile=8, overlap=4))
    np.testing.assert_allclose(tiled, local_decoder(latents), atol=2e-5)


def test_tiled_decoding_stays_close_to_the_plain_one(vae):
    latents = noise(1, 24, 32, 4)
    plain = jax.jit(lambda m, z: m.decode(z))(vae, latents)
    tiled = jax.jit(lambda m, z: m.decode(z, Tiling(max_cells=24 * 31, tile=20, overlap=10)))(vae, latents)
    error = np.abs(np.asarray(plain - tiled))
    assert error.max() > 0  # tiles were used
    assert error.mean() < 0.15 * np.std(plain)  # what differs is each tile's own group-norm statistics


def test_one_tile_gives_exactly_the_plain_picture(vae):
    latents = noise(1, 4, 6, 4)
    plain, untiled, tiled = (
        jax.jit(lambda m, z, t=tiling: m.decode(z, t))(vae, latents)
        for tiling in (
            Tiling(),
            Tiling(max_cells=24, tile=2, overlap=1),
            Tiling(max_cells=1, tile=6, overlap=1),
        )
    )
    np.testing.assert_array_equal(untiled, plain)
    np.testing.assert_allclose(tiled, plain, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 8), (8, 2), (0, 4)])
def test_pictures_that_the_factor_does_not_divide_are_refused(vae, shape):
    with pytest.raises(InputError, match="multiples of 4"):
        vae.encode(jnp.zeros((1, *shape, 3)))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="norm_groups 32"):
        VAEConfig(block_out_channels=(48,))
    with pytest.raises(InputError, match="overlap 5"):
        Tiling(tile=8, overlap=5)
