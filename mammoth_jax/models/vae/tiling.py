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
    """Weights along one side of a tile: almost 0 in the outer third of the overlap, 1 from its inner third on.

    They stay positive, because at the picture's border there is no other tile.
    """
    depth = np.arange(size) + 0.5
    depth = np.minimum(depth, size - depth) / overlap  # 0 at the edge, 1 where the overlap ends
    return np.clip(3 * depth - 1, 1e-6, 1.0).astype(np.float32)
