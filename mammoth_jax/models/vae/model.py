"""The image autoencoder: pictures in [-1, 1] to a Gaussian over latents, and latents to pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float, UInt8
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.norm import GroupNorm
from mammoth_jax.models.vae.blocks import EPS, DownBlock, MidBlock, UpBlock
from mammoth_jax.models.vae.config import Tiling, VAEConfig
from mammoth_jax.models.vae.tiling import decode_tiled


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents (not scaled), float32."""

    mean: Float[Array, "..."]
    logvar: Float[Array, "..."]

    def sample(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """The latents that standard normal ``noise`` selects."""
        return self.mean + jnp.exp(0.5 * self.logvar) * noise


class Encoder(nnx.Module):
    """Picture to the moments of the posterior."""

    def __init__(self, config: VAEConfig):
        widths, groups = config.block_out_channels, config.norm_groups
        self.conv_in = Conv2d(config.in_channels, widths[0], 3)
        self.down = nnx.List(
            [
                DownBlock(a, b, config.layers_per_block, groups, i == len(widths) - 1)
                for i, (a, b) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True))
            ]
        )
        self.mid = MidBlock(widths[-1], groups, config.mid_attention)
        self.norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = Conv2d(widths[-1], 2 * config.latent_channels, 3)

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Posterior:
        """The posterior over latents of a picture in [-1, 1]; the log variance is clamped to [-30, 20].

        Raises:
          InputError: a side is not a positive multiple of the factor.
        """
        rows, cols, factor = picture.shape[1], picture.shape[2], 2 ** (len(self.down) - 1)
        if rows < factor or cols < factor or rows % factor or cols % factor:
            raise InputError(
                f"picture of {cols}x{rows} pixels: both sides must be multiples of {factor}; resize it first"
            )
        *_, (_, moments) = self.stages(picture)
        return posterior(moments)

    def stages(
        self, picture: Float[Array, "b rows cols 3"]
    ) -> Iterator[tuple[str, Float[Array, "b rows2 cols2 c"]]]:
        """The computation step by step, as (name, value): each block, at last the moments ``[mean ; logvar]``."""
        h = self.conv_in(picture)
        for i, block in enumerate(self.down):
            h = block(h)
            yield f"down_block_{i}", h
        h = self.mid(h)
        yield "mid", h
        yield "moments", self.conv_out(jax.nn.silu(self.norm_out(h)))


class Decoder(nnx.Module):
    """Latents (not scaled) to a picture."""

    def __init__(self, config: VAEConfig):
        widths, groups = config.block_out_channels[::-1], config.norm_groups
        self.conv_in = Conv2d(config.latent_channels, widths[0], 3)
        self.mid = MidBlock(widths[0], groups, config.mid_attention)
        self.up = nnx.List(
            [
                UpBlock(a, b, config.layers_per_block + 1, groups, i == len(widths) - 1)
                for i, (a, b) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True))
            ]
        )
        self.norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = Conv2d(widths[-1], config.out_channels, 3)

    def __call__(self, latents: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 3"]:
        """The picture, about [-1, 1] and not clamped."""
        *_, (_, picture) = self.stages(latents)
        return picture

    def stages(
        self, latents: Float[Array, "b rows cols c"]
    ) -> Iterator[tuple[str, Float[Array, "b rows2 cols2 c2"]]]:
        """The computation step by step, as (name, value): each block, at last what ``conv_out`` reads (``last``)
        and the picture that it makes of it."""
        h = self.mid(self.conv_in(latents))
        yield "mid", h
        for i, block in enumerate(self.up):
            h = block(h)
            yield f"up_block_{i}", h
        h = jax.nn.silu(self.norm_out(h))
        yield "last", h
        yield "picture", self.conv_out(h)


class VAE(nnx.Module):
    """Both halves and the latents' scale."""

    def __init__(self, config: VAEConfig):
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, picture: Float[Array, "b rows cols 3"]) -> Posterior:
        """What the encoder makes of a picture; raises what it raises."""
        return self.encoder(picture)

    def decode(
        self,
        latents: Float[Array, "b rows cols c"],
        tiling: Tiling = Tiling(),
        *,
        dtype: DTypeLike = jnp.float32,
    ) -> Float[Array, "b rows2 cols2 3"]:
        """The picture of *unscaled* latents, about [-1, 1] and not clamped, float32; computed in ``dtype``.

        Grids above ``tiling.max_cells`` are decoded in blended tiles, inside the same program.
        """
        if latents.shape[1] * latents.shape[2] <= tiling.max_cells:
            return self.decoder(latents.astype(dtype)).astype(jnp.float32)
        return decode_tiled(self.decoder, latents.astype(dtype), self.config.factor, tiling)

    def scale_latents(self, latents: Float[Array, "..."]) -> Float[Array, "..."]:
        """Latents as the diffusion transformer sees them, float32."""
        return (latents.astype(jnp.float32) - self.config.shift_factor) * self.config.scaling_factor

    def unscale_latents(self, latents: Float[Array, "..."]) -> Float[Array, "..."]:
        """The inverse of :meth:`scale_latents`, float32."""
        return latents.astype(jnp.float32) / self.config.scaling_factor + self.config.shift_factor


def posterior(moments: Float[Array, "b rows cols c2"]) -> Posterior:
    """The encoder's output as a Gaussian."""
    mean, logvar = jnp.split(at_least_float32(moments), 2, axis=-1)
    return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))


def postprocess(picture: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Pixels of a decoded picture: ``255 (x / 2 + 1/2)`` clamped and rounded (half to even)."""
    return jnp.round(jnp.clip(picture.astype(jnp.float32) / 2 + 0.5, 0.0, 1.0) * 255).astype(jnp.uint8)
