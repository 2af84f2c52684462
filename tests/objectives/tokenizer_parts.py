"""Tiny tokenizers, a discriminator and stand-ins for the frozen networks, for the tests of the tokenizers' losses."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import cast, initialize
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.models.discriminator import Discriminator, DiscriminatorConfig
from mammoth_jax.models.mammothtok import (
    CNNDecoderConfig,
    EncoderConfig,
    MammothTok,
    MammothTokConfig,
    ViTDecoderConfig,
)
from mammoth_jax.models.vae import VAE, VAEConfig
from mammoth_jax.objectives.tokenizer import Networks

MAMMOTHTOK = MammothTokConfig(
    encoder=EncoderConfig(patch_size=2, width=8, mlp_width=8, num_layers=1, num_heads=2),
    codebook_size=16,
    code_dim=4,
    entropy_ratio=0.1,
    z_channels=4,
    vit=ViTDecoderConfig(width=8, num_layers=1, num_heads=2, distill_depth=1, semantic_width=6, mlp_ratio=1),
    cnn=CNNDecoderConfig(channels=4, multipliers=(1, 1), num_res_blocks=1, norm_groups=2, upsampling=2),
)
TINY_VAE = VAEConfig(
    latent_channels=2, block_out_channels=(4, 4), layers_per_block=1, norm_groups=2, mid_attention=False
)
TINY_DISCRIMINATOR = DiscriminatorConfig(channels=4, num_downsamplings=1, max_multiplier=1, norm_groups=2)


class Distance(nnx.Module):
    """In place of LPIPS: squared distance of the features of one smooth layer."""

    def __init__(self):
        self.conv = Conv2d(3, 4, 3)

    def __call__(
        self, picture: Float[Array, "b rows cols 3"], target: Float[Array, "b rows cols 3"]
    ) -> Float[Array, " b"]:
        a, b = jnp.tanh(self.conv(picture)), jnp.tanh(self.conv(target))
        return jnp.mean(jnp.square(a - b), axis=(1, 2, 3))


class Teacher(nnx.Module):
    """In place of a semantic encoder: features of 4x4 patches."""

    def __init__(self):
        self.conv = Conv2d(3, 6, 4, stride=4, padding=((0, 0), (0, 0)))

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b tr tc e"]:
        return self.conv(picture)


def mammothtok() -> MammothTok:
    """Random weights."""
    return initialize(lambda: MammothTok(MAMMOTHTOK), 0, single_device_mesh())


def vae() -> VAE:
    """Random weights."""
    return initialize(lambda: VAE(TINY_VAE), 1, single_device_mesh())


def discriminator(dtype=jnp.float32) -> Discriminator:
    """Random weights."""
    return cast(initialize(lambda: Discriminator(TINY_DISCRIMINATOR), 2, single_device_mesh()), dtype)


def networks() -> Networks:
    """All three."""
    mesh = single_device_mesh()
    return Networks(discriminator(), initialize(Distance, 3, mesh), initialize(Teacher, 4, mesh))


def pictures(*shape: int, seed: int = 0, dtype=np.float32) -> jax.Array:
    """Uniform noise in [-1, 1]."""
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype))
