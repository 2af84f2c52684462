"""Spatial features to pixels: residual convolutions, adaptive group norm, depth-to-space upsampling.

The adaptive norm follows MAGVIT-v2 (Yu et al. 2023, section 3.2): before each level a group norm without weights,
whose scale and shift are linear in the standard deviation and the mean of the decoder's own input over the grid.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.norm import GroupNorm
from mammoth_jax.layers.residual import ResStack
from mammoth_jax.models.mammothtok.config import CNNDecoderConfig
from mammoth_jax.ops.norm import group_norm
from mammoth_jax.ops.resample import depth_to_space, resize_bilinear

_EPS = 1e-6


class AdaptiveGroupNorm(nnx.Module):
    """Group norm whose scale and shift come from the statistics of ``style`` over the grid."""

    def __init__(self, style_channels: int, channels: int, groups: int):
        self.groups = groups
        self.scale = Linear(style_channels, channels, axes=("embed", None), bias=True)
        self.shift = Linear(style_channels, channels, axes=("embed", None), bias=True)

    def __call__(
        self, x: Float[Array, "b rows cols c"], style: Float[Array, "b gr gc z"]
    ) -> Float[Array, "b rows cols c"]:
        """The variance of ``style`` is the unbiased one; a grid of one cell has variance 0."""
        style = style.astype(jnp.float32)
        cells = style.shape[1] * style.shape[2]
        mean = jnp.mean(style, axis=(1, 2), keepdims=True)
        variance = jnp.sum(jnp.square(style - mean), axis=(1, 2), keepdims=True) / max(cells - 1, 1)
        scale, shift = self.scale(jnp.sqrt(variance + _EPS)), self.shift(mean)
        return group_norm(x, self.groups, None, None, _EPS) * scale.astype(x.dtype) + shift.astype(x.dtype)


class Upsample(nnx.Module):
    """A convolution to four times the channels, which become 2x2 cells."""

    def __init__(self, channels: int):
        self.conv = Conv2d(channels, 4 * channels, 3)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c"]:
        return depth_to_space(self.conv(x), 2)


class Level(nnx.Module):
    """One resolution: adaptive norm, residual blocks and, but for the finest, the upsampling to the next."""

    def __init__(
        self,
        config: CNNDecoderConfig,
        z_channels: int,
        inputs: int,
        outputs: int,
        finest: bool,
    ):
        groups = config.norm_groups
        self.adaptive = AdaptiveGroupNorm(z_channels, inputs, groups)
        self.blocks = ResStack(inputs, outputs, config.num_res_blocks + 1, groups, eps=_EPS)
        self.upsample = None if finest else Upsample(outputs)


class CNNDecoder(nnx.Module):
    """From the token grid to the picture; ``levels`` run from the coarsest to the finest."""

    def __init__(self, config: CNNDecoderConfig, z_channels: int):
        widths = [config.channels * m for m in reversed(config.multipliers)]
        self.upsampling = config.upsampling
        self.fractional = config.fractional
        self.conv_in = Conv2d(z_channels, widths[0], 3)
        self.mid = ResStack(widths[0], widths[0], 2, config.norm_groups, eps=_EPS)
        self.levels = nnx.List(
            [
                Level(config, z_channels, inputs, outputs, i == len(widths) - 1)
                for i, (inputs, outputs) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True))
            ]
        )
        self.norm_out = GroupNorm(config.norm_groups, widths[-1], eps=_EPS)
        self.conv_out = Conv2d(widths[-1], 3, 3)

    def __call__(self, z: Float[Array, "b gr gc z"]) -> Float[Array, "b rows cols 3"]:
        """The picture, about [-1, 1] and not clamped."""
        *_, (_, picture) = self.stages(z)
        return picture

    def stages(self, z: Float[Array, "b gr gc z"]) -> Iterator[tuple[str, Float[Array, "b rows cols c"]]]:
        """The computation step by step, as (name, value): each level's norm and upsampling, at last what ``conv_out``
        reads (``last``) and the picture that it makes of it."""
        h = self.mid(self.conv_in(z))
        for i, level in enumerate(self.levels):
            h = level.adaptive(h, z)
            yield f"adaptive_{i}", h
            h = level.blocks(h)
            if self.fractional and i == len(self.levels) - 2:
                h = resize_bilinear(h, z.shape[1] * self.upsampling // 2, z.shape[2] * self.upsampling // 2)
                yield "fractional", h
            if level.upsample is not None:
                h = level.upsample(h)
                yield f"upsample_{i}", h
        h = jax.nn.silu(self.norm_out(h))
        yield "last", h
        yield "picture", self.conv_out(h)
