"""VGG16's convolutions (Simonyan and Zisserman 2015, configuration D) and the five activations that LPIPS compares."""

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of each 3x3 convolution; sides halve between stages."""
_LEAST_SIDE = 2 ** (len(STAGES) - 1)


class VGG16(nnx.Module):
    """The convolutions, each followed by a ReLU; pictures as ImageNet's classifiers take them."""

    def __init__(self):
        widths = [3, *(width for stage in STAGES for width in stage)]
        self.convs = nnx.List([Conv2d(a, b, 3) for a, b in zip(widths[:-1], widths[1:], strict=True)])

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> list[Float[Array, "b r c d"]]:
        """The last activations of each stage (relu1_2, relu2_2, relu3_3, relu4_3, relu5_3).

        Raises:
          InputError: a side is under 16 pixels, so that the last stage would see nothing.
        """
        if min(picture.shape[1:3]) < _LEAST_SIDE:
            raise InputError(
                f"picture of {picture.shape[2]}x{picture.shape[1]} pixels: VGG16 needs sides of at least "
                f"{_LEAST_SIDE}; use larger pictures or turn the perceptual loss off"
            )
        convs, x, taps = iter(self.convs), picture, []
        for i, stage in enumerate(STAGES):
            x = _halve(x) if i else x
            for _ in stage:
                x = jax.nn.relu(next(convs)(x))
            taps.append(x)
        return taps


def _halve(x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c"]:
    """The largest of each 2x2; an odd last row or column is left out."""
    b, rows, cols, c = x.shape
    x = x[:, : rows // 2 * 2, : cols // 2 * 2]
    return jnp.max(x.reshape(b, rows // 2, 2, cols // 2, 2, c), axis=(2, 4))
