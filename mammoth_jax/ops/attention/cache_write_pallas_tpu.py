"""Writing a few new tokens a row into a cache on TPU, in place and in the cache's own layout.

Left to itself XLA lays the cache out as its updates come out of the layers, and copies all of it at every step to what
the attention kernel reads.  Here the tiles that hold a row's new slots are read, merged and put back, nothing else.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mammoth_jax.core.types import Array, Int, Shaped

MOST_TOKENS = 16
"""New tokens a row: they lie in one tile or two."""
SLOTS_OF_TILE = 32
LANES = 128
BLOCK_BYTES = 2**20


def write_few_tokens(
    cache: Shaped[Array, "l b k t *e"],
    new: Shaped[Array, "l b k s *e"],
    at: Int[Array, " b"],
    count: Int[Array, " b"],
    *,
    interpret: bool = False,
) -> Shaped[Array, "l b k t *e"]:
    """The cache with the first ``count`` new tokens of each row in slots ``at`` and on; the argument is consumed."""
    layers, b, k, capacity, *width = cache.shape
    s = new.shape[3]
    tile = min(SLOTS_OF_TILE if width else LANES, capacity)
    tiles = -(-capacity // tile)
    layer_bytes = k * tile * math.prod(width) * cache.dtype.itemsize
    most = max(BLOCK_BYTES // layer_bytes, 1)
    together = max(n for n in range(1, layers + 1) if layers % n == 0 and n <= most)
    zeros = (0,) * len(width)

    def tile_at(row, group, window, at, count):
        return (group, row, 0, jnp.minimum(at[row] // tile + window, tiles - 1), *zeros)

    def new_at(row, group, window, at, count):
        return (group, row, 0, 0, *zeros)

    block = pl.BlockSpec((together, 1, k, tile, *width), tile_at)
    return pl.pallas_call(
        functools.partial(_kernel, tile=tile, tiles=tiles),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(b, layers // together, 1 if s == 1 else 2),
            in_specs=[pl.BlockSpec((together, 1, k, s, *width), new_at), block],
            out_specs=block,
        ),
        out_shape=jax.ShapeDtypeStruct(cache.shape, cache.dtype),
        input_output_aliases={3: 0},
        interpret=interpret,
        name="write_cache",
    )(at.astype(jnp.int32), count.astype(jnp.int32), new.astype(cache.dtype), cache)


def _kernel(at_ref, count_ref, new_ref, old_ref, out_ref, *, tile: int, tiles: int) -> None:
    """Merges a tile; one that is visited twice (both windows at the end of the cache) is merged alike both times."""
    row, window = pl.program_id(0), pl.program_id(2)
    at, count = at_ref[row], count_ref[row]
    first = jnp.minimum(at // tile + window, tiles - 1) * tile
    merged = old_ref[...]
    slot = first + jax.lax.broadcasted_iota(jnp.int32, merged.shape, 3)
    for token in range(new_ref.shape[3]):
        new = jnp.broadcast_to(new_ref[:, :, :, token : token + 1], merged.shape)
        merged = jnp.where((slot == at + token) & (token < count), new, merged)
    out_ref[...] = merged
