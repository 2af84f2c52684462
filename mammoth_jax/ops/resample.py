"""Changes of resolution on channels-last pictures."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float


def depth_to_space(x: Float[Array, "b rows cols c"], block: int) -> Float[Array, "b rows2 cols2 c2"]:
    """Each cell becomes ``block x block`` cells; channels are ordered (row, column, channel) within a cell."""
    b, rows, cols, c = x.shape
    x = x.reshape(b, rows, cols, block, block, c // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * block, cols * block, c // block**2)


def upsample_nearest(x: Float[Array, "b rows cols c"], factor: int) -> Float[Array, "b rows2 cols2 c"]:
    """Each cell is repeated ``factor x factor`` times."""
    b, rows, cols, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, rows, factor, cols, factor, c))
    return x.reshape(b, rows * factor, cols * factor, c)


def resize_bilinear(
    x: Float[Array, "b rows cols c"], rows: int, cols: int
) -> Float[Array, "b rows2 cols2 c"]:
    """Bilinear interpolation between cell centres, without antialiasing, clamped at the border."""
    return jax.image.resize(x, (x.shape[0], rows, cols, x.shape[3]), "linear", antialias=False)
