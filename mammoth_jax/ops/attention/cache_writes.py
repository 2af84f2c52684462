"""Writing new tokens into a cache where it lies."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Int, Shaped
from mammoth_jax.ops.attention.cache_entries import Entries
from mammoth_jax.ops.attention.cache_mesh import on_each_device
from mammoth_jax.ops.attention.cache_write_pallas_tpu import MOST_TOKENS, write_few_tokens

UNROLLED_ROWS = 16


def write_tokens(
    entries: tuple[Entries, ...], new: tuple[Entries, ...], at: Int[Array, " b"], count: Int[Array, " b"]
) -> tuple[Entries, ...]:
    """Entries ``[l, b, k, t, ...]`` with the first ``count`` of ``new [l, b, k, s, ...]`` in slots ``at`` and on.

    One window a row is read, merged and put back; the tokens must fit.  What ``new`` holds past ``count`` is written
    nowhere.
    """
    arrays, updates = jax.tree.leaves(entries), jax.tree.leaves(new)
    b, k = arrays[0].shape[1:3]

    by_kernel = target_platform() == "tpu" and updates[0].shape[3] <= MOST_TOKENS

    def run(arrays: list[Array], updates: list[Array], at: Array, count: Array) -> list[Array]:
        if by_kernel:
            return [write_few_tokens(x, new, at, count) for x, new in zip(arrays, updates, strict=True)]

        def one_row(row: Int[Array, ""], arrays: list[Array]) -> list[Array]:
            return [_merge(x, new, row, at[row], count[row]) for x, new in zip(arrays, updates, strict=True)]

        rows = at.shape[0]
        return jax.lax.fori_loop(0, rows, one_row, arrays, unroll=rows <= UNROLLED_ROWS)

    def specs(heads: PartitionSpec) -> tuple:
        stack, row = PartitionSpec(None, *heads), PartitionSpec(heads[0])
        return (stack, stack, row, row), stack

    written = on_each_device(run, (b, k), specs)(arrays, updates, at, count)
    return jax.tree.unflatten(jax.tree.structure(entries), written)


def _merge(
    cache: Shaped[Array, "l b k t *e"],
    new: Shaped[Array, "l b k s *e"],
    row: Int[Array, ""],
    at: Int[Array, ""],
    count: Int[Array, ""],
) -> Shaped[Array, "l b k t *e"]:
    """One row's tokens."""
    window, capacity = min(new.shape[3], cache.shape[3]), cache.shape[3]
    first = jnp.minimum(at, capacity - window)  # a window that begins earlier holds older slots first
    token = first + jnp.arange(window) - at
    begin = (0, row, 0, first, *[0] * (cache.ndim - 4))
    sizes = (cache.shape[0], 1, cache.shape[2], window, *cache.shape[4:])
    old = jax.lax.dynamic_slice(cache, begin, sizes)
    mine = jax.lax.dynamic_slice_in_dim(new, row, 1, axis=1)
    if new.shape[3] > 1:
        mine = jnp.take(mine, token, axis=3, mode="clip")
    taken = ((token >= 0) & (token < count)).reshape(-1, *[1] * (cache.ndim - 4))
    return jax.lax.dynamic_update_slice(cache, jnp.where(taken, mine.astype(cache.dtype), old), begin)
