"""Two-dimensional convolutions over channels-last pictures."""

import jax
from flax import nnx

from mammoth_jax.core.initializers import FanInUniform
from mammoth_jax.core.parameters import param
from mammoth_jax.core.types import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]


class Conv2d(nnx.Module):
    """A convolution with kernel ``[rows, cols, in, out]`` and bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: Padding | None = None,
    ):
        half = (size - 1) // 2
        self.stride = stride
        self.padding = padding if padding is not None else ((half, half), (half, half))
        fans = (size * size * inputs, size * size * outputs)
        axes = (None, None, None, "channels")
        self.kernel = param((size, size, inputs, outputs), axes, FanInUniform(), fans)
        self.bias = param((outputs,), (None,))

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...].astype(y.dtype)
