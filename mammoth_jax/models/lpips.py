"""LPIPS, the perceptual distance of two pictures (Zhang et al. 2018, eq. 1), with VGG16 and learned channel weights.

With the activations ``y`` of a stage, each cell scaled to length 1 over its channels::

    d(a, b) = sum over stages of  mean over cells of  w . (y(a) - y(b))^2        w >= 0, one a channel
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.initializers import ONES
from mammoth_jax.core.parameters import param
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float
from mammoth_jax.models.vgg import STAGES, VGG16

_MEAN = np.array([-0.030, -0.088, -0.188], np.float32)
_STD = np.array([0.458, 0.448, 0.450], np.float32)
"""ImageNet's statistics for pictures in [-1, 1], rounded as the published distance has them."""
_EPS = 1e-10


class LPIPS(nnx.Module):
    """The published distance, version 0.1; a frozen network: differentiate it by its pictures alone."""

    def __init__(self):
        self.vgg = VGG16()
        self.weights = nnx.List([param((stage[-1],), (None,), ONES) for stage in STAGES])

    def __call__(
        self, a: Float[Array, "b rows cols 3"], b: Float[Array, "b rows cols 3"]
    ) -> Float[Array, " b"]:
        """The distance of each pair of pictures in [-1, 1]; convolutions run in the pictures' dtype.

        Raises:
          InputError: a side is under 16 pixels.
        """
        total = jnp.zeros(a.shape[0], jnp.float32)
        for x, y, weight in zip(self.features(a), self.features(b), self.weights, strict=True):
            difference = jnp.square(unit_channels(x) - unit_channels(y))
            total = total + jnp.mean(difference @ weight[...].astype(difference.dtype), axis=(1, 2))
        return total

    def features(self, picture: Float[Array, "b rows cols 3"]) -> list[Float[Array, "b r c d"]]:
        """VGG16's activations of a picture in [-1, 1]."""
        return self.vgg((picture - _MEAN.astype(picture.dtype)) / _STD.astype(picture.dtype))


def unit_channels(x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
    """Each cell over its length plus a little.  Cells of zeros stay so, and their gradient is 0 instead of 0/0."""
    x = at_least_float32(x)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    empty = square == 0
    length = jnp.sqrt(jnp.where(empty, 1.0, square))
    return jnp.where(empty, 0.0, x / (length + _EPS))
