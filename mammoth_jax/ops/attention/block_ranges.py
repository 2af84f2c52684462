"""Which blocks of keys a block of queries can see at all, so that kernels visit no others.

Exact in one direction: a block that is left out holds no visible pair.  What is visited is masked inside the block.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Int
from mammoth_jax.ops.attention.task import AttentionMask

_NO_SEGMENT = jnp.iinfo(jnp.int32).max


def padded_length(length: int, block: int) -> int:
    """The next multiple of ``block``."""
    return -(-length // block) * block


def fit_block(block: int, length: int, unit: int) -> int:
    """The block for a length: a multiple of ``unit``, at most ``block``, and so that the last one is nearly full."""
    count = -(-length // block)
    return min(block, padded_length(-(-length // count), unit))


def pad_mask(
    mask: AttentionMask, batch: int, query_length: int, key_length: int, query_block: int, key_block: int
) -> AttentionMask:
    """The mask of lengths padded to whole blocks, as segment 0; segments are made up where padding needs them."""
    query_pad = padded_length(query_length, query_block) - query_length
    key_pad = padded_length(key_length, key_block) - key_length
    query_segments, key_segments = mask.query_segments, mask.key_segments
    if query_segments is None or key_segments is None:
        if not query_pad and not key_pad:
            return mask
        query_segments = jnp.ones((batch, query_length), jnp.int32)
        key_segments = jnp.ones((batch, key_length), jnp.int32)
    return dataclasses.replace(
        mask,
        query_segments=jnp.pad(query_segments.astype(jnp.int32), ((0, 0), (0, query_pad))),
        key_segments=jnp.pad(key_segments.astype(jnp.int32), ((0, 0), (0, key_pad))),
    )


def needed_blocks(
    mask: AttentionMask, batch: int, query_blocks: int, key_blocks: int, query_block: int, key_block: int
) -> Bool[Array, "b nq nk"]:
    """Whether a block of queries may see a block of keys, from the lowest and highest segment of each."""
    needed = jnp.ones((batch, query_blocks, key_blocks), bool)
    if mask.query_segments is not None and mask.key_segments is not None:
        query_low, query_high = _segment_bounds(mask.query_segments, query_blocks)
        key_low, key_high = _segment_bounds(mask.key_segments, key_blocks)
        needed = (query_low[:, :, None] <= key_high[:, None]) & (key_low[:, None] <= query_high[:, :, None])
    if mask.causal:
        last_query = (jnp.arange(query_blocks) + 1) * query_block - 1
        if mask.query_offset is not None:
            last_query = last_query + mask.query_offset[:, None]
        else:
            last_query = last_query[None]
        needed = needed & (last_query[:, :, None] >= jnp.arange(key_blocks) * key_block)
    return needed


def _segment_bounds(
    segments: Int[Array, "b length"], blocks: int
) -> tuple[Int[Array, "b blocks"], Int[Array, "b blocks"]]:
    split = segments.reshape(segments.shape[0], blocks, -1)
    low = jnp.min(jnp.where(split > 0, split, _NO_SEGMENT), axis=-1)
    return low, jnp.max(split, axis=-1)


def spans(needed: Bool[Array, "... n"]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """First needed block and one past the last; both 0 where none is."""
    n = needed.shape[-1]
    some = jnp.any(needed, axis=-1)
    first = jnp.argmax(needed, axis=-1).astype(jnp.int32)
    stop = n - jnp.argmax(jnp.flip(needed, axis=-1), axis=-1).astype(jnp.int32)
    return jax.lax.select(some, first, jnp.zeros_like(first)), jax.lax.select(
        some, stop, jnp.zeros_like(stop)
    )
