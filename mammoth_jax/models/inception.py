"""Inception v3's pooled features as the FID takes them (Szegedy et al. 2016; Heusel et al. 2017).

The network of 2015-12-05 whose weights the FID is defined by.  It differs from later releases in its pools: averages
leave the border's padding out, and the last block takes the maximum.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import ONES, FanInUniform
from mammoth_jax.core.parameters import param
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.resample import resize_bilinear

SIDE = 299
"""Pixels a side at which the features are defined."""
NUM_FEATURES = 2048
_EPS = 1e-3


class ConvNorm(nnx.Module):
    """A convolution, batch normalisation by stored statistics, a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], *, stride: int = 1, pad: bool = True
    ):
        self.stride = stride
        sides = ((n - 1) // 2 if pad else 0 for n in size)
        self.padding = [(n, n) for n in sides]
        fans = (size[0] * size[1] * inputs, size[0] * size[1] * outputs)
        self.kernel = param((*size, inputs, outputs), (None, None, None, "channels"), FanInUniform(), fans)
        self.scale = param((outputs,), (None,), ONES)
        self.bias = param((outputs,), (None,))
        self.mean = param((outputs,), (None,))
        self.variance = param((outputs,), (None,), ONES)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        scale = self.scale[...] * jax.lax.rsqrt(self.variance[...] + _EPS)
        return jax.nn.relu(
            (y - self.mean[...].astype(y.dtype)) * scale.astype(y.dtype) + self.bias[...].astype(y.dtype)
        )


def _chain(inputs: int, *convs: tuple[int, int, int]) -> nnx.List[ConvNorm]:
    """Convolutions one after another: (outputs, rows, columns) of each."""
    widths = [inputs, *(outputs for outputs, _, _ in convs)]
    return nnx.List(
        [ConvNorm(width, n, (rows, cols)) for width, (n, rows, cols) in zip(widths, convs, strict=False)]
    )


def _run(convs: Sequence[ConvNorm], x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
    for conv in convs:
        x = conv(x)
    return x


class BlockA(nnx.Module):
    """1x1, 5x5, two 3x3, and an average, at 35x35."""

    def __init__(self, inputs: int, pooled: int):
        self.point = _chain(inputs, (64, 1, 1))
        self.five = _chain(inputs, (48, 1, 1), (64, 5, 5))
        self.three = _chain(inputs, (64, 1, 1), (96, 3, 3), (96, 3, 3))
        self.pool = _chain(inputs, (pooled, 1, 1))

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c2"]:
        branches = _run(self.point, x), _run(self.five, x), _run(self.three, x), _run(self.pool, _average(x))
        return jnp.concatenate(branches, axis=-1)


class BlockB(nnx.Module):
    """From 35x35 to 17x17."""

    def __init__(self, inputs: int):
        self.three = ConvNorm(inputs, 384, (3, 3), stride=2, pad=False)
        self.double = _chain(inputs, (64, 1, 1), (96, 3, 3))
        self.double_out = ConvNorm(96, 96, (3, 3), stride=2, pad=False)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        double = self.double_out(_run(self.double, x))
        return jnp.concatenate([self.three(x), double, _halve(x)], axis=-1)


class BlockC(nnx.Module):
    """Factorised 7x7 convolutions at 17x17, ``inner`` channels wide."""

    def __init__(self, inner: int):
        n = inner
        self.point = _chain(768, (192, 1, 1))
        self.seven = _chain(768, (n, 1, 1), (n, 1, 7), (192, 7, 1))
        self.double = _chain(768, (n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7))
        self.pool = _chain(768, (192, 1, 1))

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c2"]:
        branches = (
            _run(self.point, x),
            _run(self.seven, x),
            _run(self.double, x),
            _run(self.pool, _average(x)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockD(nnx.Module):
    """From 17x17 to 8x8."""

    def __init__(self):
        self.three = _chain(768, (192, 1, 1))
        self.three_out = ConvNorm(192, 320, (3, 3), stride=2, pad=False)
        self.seven = _chain(768, (192, 1, 1), (192, 1, 7), (192, 7, 1))
        self.seven_out = ConvNorm(192, 192, (3, 3), stride=2, pad=False)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        three, seven = self.three_out(_run(self.three, x)), self.seven_out(_run(self.seven, x))
        return jnp.concatenate([three, seven, _halve(x)], axis=-1)


class BlockE(nnx.Module):
    """3x3 convolutions that end in a row and a column each, at 8x8.  A subclass says how the last branch pools."""

    def __init__(self, inputs: int):
        self.point = _chain(inputs, (320, 1, 1))
        self.three = _chain(inputs, (384, 1, 1))
        self.double = _chain(inputs, (448, 1, 1), (384, 3, 3))
        self.three_row, self.three_column = ConvNorm(384, 384, (1, 3)), ConvNorm(384, 384, (3, 1))
        self.double_row, self.double_column = ConvNorm(384, 384, (1, 3)), ConvNorm(384, 384, (3, 1))
        self.pool = _chain(inputs, (192, 1, 1))

    def pooled(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
        """Of each 3x3 neighbourhood, the average of the cells that are inside."""
        return _average(x)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c2"]:
        three, double = _run(self.three, x), _run(self.double, x)
        branches = (
            _run(self.point, x),
            *(self.three_row(three), self.three_column(three)),
            *(self.double_row(double), self.double_column(double)),
            _run(self.pool, self.pooled(x)),
        )
        return jnp.concatenate(branches, axis=-1)


class LastBlock(BlockE):
    """The last block takes the maximum."""

    def pooled(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


class Inception(nnx.Module):
    """The network up to its last pool, in five stages; a frozen network."""

    def __init__(self):
        self.stem = nnx.List(
            [
                ConvNorm(3, 32, (3, 3), stride=2, pad=False),
                ConvNorm(32, 32, (3, 3), pad=False),
                ConvNorm(32, 64, (3, 3)),
                ConvNorm(64, 80, (1, 1)),
                ConvNorm(80, 192, (3, 3), pad=False),
            ]
        )
        self.a = nnx.List([BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)])
        self.b = BlockB(288)
        self.c = nnx.List([BlockC(inner) for inner in (128, 160, 160, 192)])
        self.d = BlockD()
        self.e = nnx.List([BlockE(1280), LastBlock(2048)])

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b 2048"]:
        """Features of pictures in [-1, 1] of any size, float32; sides become 299 by bilinear interpolation.

        The FID's resize has no antialiasing, so it skips pixels of pictures that are larger.
        """
        return self.stages(resize_bilinear(picture, SIDE, SIDE))[-1]

    def stages(self, picture: Float[Array, "b rows cols 3"]) -> list[Float[Array, "..."]]:
        """Maps after the first and second pools of the stem and the 17x17 blocks, and the features; sides are kept.

        Sides of at least 75 pixels.
        """
        first = _halve(_run(self.stem[:3], picture))
        second = _halve(_run(self.stem[3:], first))
        x = second
        for block in self.a:
            x = block(x)
        x = self.b(x)
        for block in self.c:
            x = block(x)
        third = x
        x = self.d(x)
        for block in self.e:
            x = block(x)
        return [first, second, third, jnp.mean(at_least_float32(x), axis=(1, 2))]


def _halve(x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c"]:
    """The largest of each 3x3, every second row and column."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _average(x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
    """Of each 3x3 neighbourhood, the average of the cells that are inside."""

    def around(y: Float[Array, "b2 rows cols c2"]) -> Float[Array, "b2 rows cols c2"]:
        return jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return around(x) / around(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
