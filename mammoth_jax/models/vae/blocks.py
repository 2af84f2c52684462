"""Blocks of the autoencoder: attention over the grid, and the changes of resolution."""

from flax import nnx

from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.norm import GroupNorm
from mammoth_jax.layers.residual import ResBlock, ResStack
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.resample import upsample_nearest

EPS = 1e-6


class GridAttention(nnx.Module):
    """``x`` plus one-head attention of every cell to every cell."""

    def __init__(self, channels: int, groups: int):
        def linear(axes: tuple[str, str]) -> Linear:
            return Linear(channels, channels, axes=axes, bias=True)

        self.norm = GroupNorm(groups, channels, eps=EPS)
        self.query, self.key, self.value = (linear(("embed", "mlp")) for _ in range(3))
        self.out = linear(("mlp", "embed"))

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
        cells = self.norm(x).reshape(x.shape[0], -1, 1, x.shape[-1])
        h = attention(self.query(cells), self.key(cells), self.value(cells))
        return x + self.out(h).reshape(x.shape)


class MidBlock(nnx.Module):
    """Residual block, attention (if any), residual block at the latent resolution."""

    def __init__(self, channels: int, groups: int, mid_attention: bool):
        self.first = ResBlock(channels, channels, groups, eps=EPS)
        self.attention = GridAttention(channels, groups) if mid_attention else None
        self.second = ResBlock(channels, channels, groups, eps=EPS)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
        x = self.first(x)
        return self.second(x if self.attention is None else self.attention(x))


class DownBlock(nnx.Module):
    """Residual blocks and, but for the last block, a convolution of stride 2 padded at the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, last: bool):
        self.blocks = ResStack(inputs, outputs, layers, groups, eps=EPS)
        pad = ((0, 1), (0, 1))
        self.downsample = None if last else Conv2d(outputs, outputs, 3, stride=2, padding=pad)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class UpBlock(nnx.Module):
    """Residual blocks and, but for the last block, nearest doubling followed by a convolution."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, last: bool):
        self.blocks = ResStack(inputs, outputs, layers, groups, eps=EPS)
        self.upsample = None if last else Conv2d(outputs, outputs, 3)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        x = self.blocks(x)
        return x if self.upsample is None else self.upsample(upsample_nearest(x, 2))
