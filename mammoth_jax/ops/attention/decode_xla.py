"""Decode attention as plain XLA: the definition, and a form that reads only the blocks of the cache in use."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.cache_entries import Entries, products, weighted_sum

NOTHING = -1e30
"""The score of what a query may not see."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CacheView:
    """One layer of a cache: entries of all layers, which of them, and each row's valid slots.

    Slots ``start <= slot < length`` of a row are seen by all its new tokens; the others may hold anything finite.
    """

    keys: Entries  # [l, b, k, t, ...]
    values: Entries
    layer: Int[Array, ""]
    start: Int[Array, " b"]
    length: Int[Array, " b"]

    @property
    def capacity(self) -> int:
        """Slots a row."""
        return self.keys.shape[3]

    def slots(self, first: Int[Array, ""] | int, count: int) -> tuple[Entries, Entries]:
        """Keys and values ``[b, k, count, ...]`` of this layer's slots from ``first`` on."""

        def cut(x: Array) -> Array:
            begin = (self.layer, 0, 0, first, *[0] * (x.ndim - 4))
            return jax.lax.dynamic_slice(x, begin, (1, *x.shape[1:3], count, *x.shape[4:]))[0]

        return jax.tree.map(cut, self.keys), jax.tree.map(cut, self.values)


class DecodeAttention(Protocol):
    """An implementation, over queries with the heads of a key/value head as further rows (``m = s * g``)."""

    def __call__(
        self,
        query: Float[Array, "b k m e"],
        new_key: Float[Array, "b k s e"],
        new_value: Float[Array, "b k s e"],
        cache: CacheView,
        scale: float,
    ) -> Float[Array, "b k m e"]: ...


@dataclasses.dataclass(frozen=True)
class WholeCache:
    """The definition: scores of all slots, in use or not."""

    def __call__(
        self,
        query: Float[Array, "b k m e"],
        new_key: Float[Array, "b k s e"],
        new_value: Float[Array, "b k s e"],
        cache: CacheView,
        scale: float,
    ) -> Float[Array, "b k m e"]:
        keys, values = cache.slots(0, cache.capacity)
        slot = jnp.arange(cache.capacity)[None]
        valid = (slot >= cache.start[:, None]) & (slot < cache.length[:, None])
        old = jnp.where(valid[:, None, None], products(query, keys) * scale, NOTHING)
        new = new_scores(query, new_key, scale)
        top = jnp.maximum(jnp.max(old, axis=-1), jnp.max(new, axis=-1))[..., None]
        old, new = jnp.exp(old - top), jnp.exp(new - top)
        total = jnp.sum(old, axis=-1, keepdims=True) + jnp.sum(new, axis=-1, keepdims=True)
        mixed = weighted_sum(old, values, query.dtype) + weighted_sum(new, new_value, query.dtype)
        return mixed / total


@dataclasses.dataclass(frozen=True)
class UsedBlocks:
    """Reads the cache in blocks of slots with a running soft-max, from the first valid slot of any row to the last."""

    block: int

    def __call__(
        self,
        query: Float[Array, "b k m e"],
        new_key: Float[Array, "b k s e"],
        new_value: Float[Array, "b k s e"],
        cache: CacheView,
        scale: float,
    ) -> Float[Array, "b k m e"]:
        block = min(self.block, cache.capacity)
        new = new_scores(query, new_key, scale)
        top = jnp.max(new, axis=-1)  # a new token sees itself, so this is finite
        weights = jnp.exp(new - top[..., None])
        state = (top, jnp.sum(weights, axis=-1), weighted_sum(weights, new_value, query.dtype))

        def add(number: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, mixed = state
            wanted = number * block
            first = jnp.minimum(wanted, cache.capacity - block)  # the last block may begin earlier
            keys, values = cache.slots(first, block)
            slot = first + jnp.arange(block)[None]
            valid = (slot >= jnp.maximum(cache.start, wanted)[:, None]) & (slot < cache.length[:, None])
            scores = jnp.where(valid[:, None, None], products(query, keys) * scale, NOTHING)
            higher = jnp.maximum(top, jnp.max(scores, axis=-1))
            weights, kept = jnp.exp(scores - higher[..., None]), jnp.exp(top - higher)
            return (
                higher,
                total * kept + jnp.sum(weights, axis=-1),
                mixed * kept[..., None] + weighted_sum(weights, values, query.dtype),
            )

        first, stop = jnp.min(cache.start) // block, -(-jnp.max(cache.length) // block)
        _, total, mixed = jax.lax.fori_loop(first, stop, add, state)
        return mixed / total[..., None]


WHOLE_CACHE = WholeCache()


def new_scores(
    query: Float[Array, "b k m e"], new_key: Float[Array, "b k s e"], scale: float
) -> Float[Array, "b k m s"]:
    """Scores of the new tokens among themselves; the queries of a token are ``m / s`` rows after one another."""
    rows, s = query.shape[2], new_key.shape[2]
    scores = products(query, new_key) * scale
    if s == 1:
        return scores
    token = jnp.arange(rows) // (rows // s)
    return jnp.where(token[:, None] >= jnp.arange(s), scores, NOTHING)
