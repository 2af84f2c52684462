"""Decoding of large latent grids in overlapping tiles, inside one compiled program.

All tiles have one size, so the decoder is compiled once and run by a loop on the device; the last tile of a row or
column is moved inwards to end at the border.  The outer third of an overlap is context only, where the other tile's
pixels are taken, and over its middle third the two are blended linearly.  What the decoder computes locally is thus
exact; group-norm statistics and attention are each tile's own, so that the result is close to the untiled one, not
equal.
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
    row_weights = _weights(down, height, rows, tiling.overlap, factor)
    col_weights = _weights(across, width, cols, tiling.overlap, factor)
    i, j = (index.reshape(-1) for index in np.meshgrid(range(len(down)), range(len(across)), indexing="ij"))
    tiles = (down[i], across[j], row_weights[i], col_weights[j])

    def add(total: Float[Array, "b rows2 cols2 4"], tile: tuple[Array, ...]) -> tuple[Array, None]:
        row, col, row_weight, col_weight = tile
        picture = decode(jax.lax.dynamic_slice(latents, (0, row, col, 0), (b, height, width, channels)))
        picture = jnp.concatenate([picture.astype(jnp.float32), jnp.ones((*picture.shape[:-1], 1))], axis=-1)
        picture = picture * row_weight[:, None, None] * col_weight[:, None]
        place = (0, row * factor, col * factor, 0)
        old = jax.lax.dynamic_slice(total, place, picture.shape)
        return jax.lax.dynamic_update_slice(total, old + picture, place), None

    out_channels = jax.eval_shape(decode, latents[:, :height, :width]).shape[-1]
    total = jnp.zeros((b, rows * factor, cols * factor, out_channels + 1), jnp.float32)
    total, _ = jax.lax.scan(add, total, jax.tree.map(jnp.asarray, tiles))
    return total[..., :-1] / total[..., -1:]


def _starts(size: int, tile: int, overlap: int) -> np.ndarray:
    """First cells of the tiles along one side."""
    if size <= tile:
        return np.zeros(1, np.int32)
    stride = tile - overlap
    count = -(-(size - tile) // stride) + 1
    return np.minimum(np.arange(count) * stride, size - tile).astype(np.int32)


def _weights(
    starts: np.ndarray, tile: int, size: int, overlap: int, factor: int
) -> Float[np.ndarray, "tiles pixels"]:
    """Each tile's weights along one side, in pixels: ramps at its ends, but not where the picture ends."""
    depth = (np.arange(tile * factor) + 0.5) / (
        overlap * factor
    )  # 0 at the tile's edge, 1 where the overlap ends
    ramp = np.clip(3 * depth - 1, 0.0, 1.0)
    first = np.where((starts == 0)[:, None], 1.0, ramp)
    last = np.where((starts + tile == size)[:, None], 1.0, ramp[::-1])
    return np.minimum(first, last).astype(np.float32)
