"""How good reconstructions are: PSNR, SSIM, and how evenly the codes are used.

Pictures are uint8, as they would be written to a file.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float, UInt8

_RANGE = 255.0
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * _RANGE) ** 2
_C2 = (0.03 * _RANGE) ** 2


def psnr(picture: UInt8[Array, "b rows cols c"], target: UInt8[Array, "b rows cols c"]) -> Float[Array, " b"]:
    """``10 log10(255^2 / mean squared error)`` of each picture, in dB; infinite for equal ones."""
    difference = picture.astype(jnp.float32) - target.astype(jnp.float32)
    return 10 * jnp.log10(_RANGE**2 / jnp.mean(jnp.square(difference), axis=(1, 2, 3)))


def ssim(picture: UInt8[Array, "b rows cols c"], target: UInt8[Array, "b rows cols c"]) -> Float[Array, " b"]:
    """Structural similarity of each picture (Wang et al. 2004, eq. 13): 1 for equal ones.

    Statistics of 11x11 windows weighted by a Gaussian of deviation 1.5, K1 = 0.01 and K2 = 0.03, per channel, over the
    windows that lie inside.

    Raises:
      InputError: a side is shorter than the window.
    """
    rows, cols = picture.shape[1:3]
    if min(rows, cols) < _WINDOW:
        raise InputError(f"SSIM of pictures of {cols}x{rows} pixels: sides of at least {_WINDOW} are needed")
    # Around the middle of the range, E x^2 - (E x)^2 loses less to rounding.
    x, y = (p.astype(jnp.float32) - _RANGE / 2 for p in (picture, target))
    mean_x, mean_y, xx, yy, xy = _windows(jnp.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + _RANGE / 2, mean_y + _RANGE / 2
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def code_usage(counts: Float[Array, " v"]) -> Float[Array, ""]:
    """The share of codes that were chosen at all."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def code_perplexity(counts: Float[Array, " v"]) -> Float[Array, ""]:
    """``exp`` of the entropy of the choices: the number of codes that, used evenly, would say as much."""
    p = counts.astype(jnp.float32) / jnp.maximum(jnp.sum(counts), 1)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))


def _windows(maps: Float[Array, "k b rows cols c"]) -> Float[Array, "k b rows2 cols2 c"]:
    """Gaussian means of the windows that lie inside, along columns, then along rows."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (3, 2):
        inside = maps.shape[axis] - _WINDOW + 1
        total = jnp.zeros((), maps.dtype)
        for i, weight in enumerate(weights):
            total = total + weight * jax.lax.slice_in_dim(maps, i, i + inside, axis=axis)
        maps = total
    return maps
