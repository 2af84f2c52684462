"""Decoding of large latent grids in overlapping tiles, inside one compiled program.

All tiles have one size, so the decoder is compiled once and run by a loop on the device; the last tile of a row or
column is moved inwards to end at the border.  Pixels covered by several tiles are their average, weighted by ramps
that rise linearly over the overlap.  A tile sees its own group-norm statistics and its own attention: the result is
close to the untiled one, not equal.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.types import Array, Float
from mammoth_jax.models.vae.config import Tiling


def decode_tiled(
    decode: Callable[[Float[Array, "b tile_rows tile_cols c"]], Float[Array, "b rows2 cols2 3"]],
    latents: Float[Array, "b rows cols c"],
    factor: int,
    tiling: Tiling,
) -> Float[Array, "b rows2 cols2 3"]:
    """``decode`` over a grid by tiles; one latent cell becomes ``factor x factor`` pixels.  The result is float32."""
    b, rows, cols, channels = latents.shape
    height, width = min(tiling.tile, rows), min(tiling.tile, cols)
    down, across = _starts(rows, height, tiling.overlap), _starts(cols, width, tiling.overlap)
    starts = np.stack(np.meshgrid(down, across, indexing="ij"), -1).reshape(-1, 2)
    ramp = tiling.overlap * factor
    weight = jnp.asarray(_ramp(height * factor, ramp)[:, None, None] * _ramp(width * factor, ramp)[:, None])

    def add(
        total: Float[Array, "b rows2 cols2 4"], start: Array
    ) -> tuple[Float[Array, "b rows2 cols2 4"], None]:
        tile = jax.lax.dynamic_slice(latents, (0, start[0], start[1], 0), (b, height, width, channels))
        picture = decode(tile).astype(jnp.float32)
        picture = jnp.concatenate([picture, jnp.ones_like(picture[..., :1])], axis=-1) * weight
        place = (0, start[0] * factor, start[1] * factor, 0)
        old = jax.lax.dynamic_slice(total, place, picture.shape)
        return jax.lax.dynamic_update_slice(total, old + picture, place), None

    out_channels = jax.eval_shape(decode, latents[:, :height, :width]).shape[-1]
    total = jnp.zeros((b, rows * factor, cols * factor, out_channels + 1), jnp.float32)
    total, _ = jax.lax.scan(add, total, jnp.asarray(starts))
    return total[..., :-1] / total[..., -1:]


def _starts(size: int, tile: int, overlap: int) -> np.ndarray:
    """First cells of the tiles along one side."""
    if size <= tile:
        return np.zeros(1, np.int32)
    stride = tile - overlap
    count = -(-(size - tile) // stride) + 1
    return np.minimum(np.arange(count) * stride, size - tile).astype(np.int32)


def _ramp(size: int, overlap: int) -> np.ndarray:
    """Weights along one side of a tile: up over the overlap, flat, down again; positive everywhere."""
    index = np.arange(size) + 0.5
    return np.minimum(1.0, np.minimum(index, size - index) / overlap).astype(np.float32)
