"""The key/value cache of a decoder: preallocated, written at each row's own length."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.cache_entries import Entries, Int8Entries, encode_like, to_int8
from mammoth_jax.ops.attention.cache_writes import write_tokens

CacheFormat = Literal["model", "int8"]
"""How entries are held: in the model's dtype, or in int8 with a scale a token and head."""
CACHE_AXES = (None, "batch", "kv_heads", None)
"""Names of the leading dimensions of entries, for sharding."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of all layers, head-major: ``[l, b, k, t, e]``.

    A row's valid slots are ``start <= slot < length``; the others may hold anything finite.  The next token of a row
    is written at slot ``length``; going back is a smaller ``length``.  ``position`` is the rope position (equal on
    all three axes) of the next token, which is not its slot where pictures or hidden prefixes came before.
    """

    keys: Entries
    values: Entries
    start: Int[Array, " b"]
    length: Int[Array, " b"]
    position: Int[Array, " b"]

    @property
    def capacity(self) -> int:
        """Slots a row."""
        return self.keys.shape[3]

    @property
    def format(self) -> CacheFormat:
        """How the entries are held."""
        return "int8" if isinstance(self.keys, Int8Entries) else "model"

    def in_format(self, wanted: CacheFormat) -> "KVCache":
        """The same cache with its entries held as asked (a cache that is int8 already stays so)."""
        if wanted == "model" or self.format == "int8":
            return self
        return dataclasses.replace(self, keys=to_int8(self.keys), values=to_int8(self.values))

    def take(self, rows: Int[Array, " r"], capacity: int) -> "KVCache":
        """The given rows (one may be taken several times) in a cache of ``capacity`` slots a row."""

        def grow(x: Array) -> Array:
            x = jnp.take(x, rows, axis=1)
            return jnp.pad(x, [(0, capacity - x.shape[3]) if axis == 3 else (0, 0) for axis in range(x.ndim)])

        keys, values = jax.tree.map(grow, (self.keys, self.values))
        return KVCache(keys, values, self.start[rows], self.length[rows], self.position[rows]).with_sharding()

    def with_sharding(self) -> "KVCache":
        """The cache with the sharding of its entries stated."""

        def state(x: Array) -> Array:
            return constrain(x, *CACHE_AXES, *[None] * (x.ndim - len(CACHE_AXES)))

        return dataclasses.replace(
            self, keys=jax.tree.map(state, self.keys), values=jax.tree.map(state, self.values)
        )

    def put(self, row: Int[Array, ""], other: "KVCache", other_row: Int[Array, ""]) -> "KVCache":
        """This cache with one row replaced by a row of ``other``, whose capacity must not be larger."""

        def replace(mine: Array, theirs: Array) -> Array:
            one = jax.lax.dynamic_index_in_dim(theirs, other_row, axis=1, keepdims=True)
            return jax.lax.dynamic_update_slice(
                mine, one.astype(mine.dtype), (0, row, *[0] * (mine.ndim - 2))
            )

        other = other.in_format(self.format)
        keys, values = jax.tree.map(replace, (self.keys, self.values), (other.keys, other.values))
        return KVCache(
            keys,
            values,
            self.start.at[row].set(other.start[other_row]),
            self.length.at[row].set(other.length[other_row]),
            self.position.at[row].set(other.position[other_row]),
        )

    def write(
        self,
        keys: Float[Array, "l b k s e"],
        values: Float[Array, "l b k s e"],
        count: Int[Array, " b"],
        position: Int[Array, " b"],
    ) -> "KVCache":
        """Grown by the first ``count`` of ``s`` new tokens a row, for which there must be room.

        ``position`` is that of what follows.
        """
        new = encode_like(self.keys, keys), encode_like(self.values, values)
        written = write_tokens((self.keys, self.values), new, self.length, count)
        return KVCache(written[0], written[1], self.start, self.length + count, position)
