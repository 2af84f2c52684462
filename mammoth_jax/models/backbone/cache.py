"""The key/value cache of a decoder: preallocated, written at each row's own length."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of all layers.

    A row's valid slots are ``start <= slot < length``; the others may hold anything finite.  The next token of a row
    is written at slot ``length``; going back is a smaller ``length``.  ``position`` is the rope position (equal on
    all three axes) of the next token, which is not its slot where pictures or hidden prefixes came before.
    """

    keys: Float[Array, "l b t k e"]
    values: Float[Array, "l b t k e"]
    start: Int[Array, " b"]
    length: Int[Array, " b"]
    position: Int[Array, " b"]

    @property
    def capacity(self) -> int:
        """Slots a row."""
        return self.keys.shape[2]

    def take(self, rows: Int[Array, " r"], capacity: int) -> "KVCache":
        """The given rows (one may be taken several times) in a cache of ``capacity`` slots a row."""

        def grow(x: Array) -> Array:
            x = jnp.take(x, rows, axis=1)
            return jnp.pad(x, ((0, 0), (0, 0), (0, capacity - x.shape[2]), (0, 0), (0, 0)))

        return KVCache(
            grow(self.keys), grow(self.values), self.start[rows], self.length[rows], self.position[rows]
        )

    def put(self, row: Int[Array, ""], other: "KVCache", other_row: Int[Array, ""]) -> "KVCache":
        """This cache with one row replaced by a row of ``other``, whose capacity must not be larger."""

        def replace(mine: Array, theirs: Array) -> Array:
            one = jax.lax.dynamic_index_in_dim(theirs, other_row, axis=1, keepdims=True)
            return jax.lax.dynamic_update_slice(mine, one.astype(mine.dtype), (0, row, 0, 0, 0))

        return KVCache(
            replace(self.keys, other.keys),
            replace(self.values, other.values),
            self.start.at[row].set(other.start[other_row]),
            self.length.at[row].set(other.length[other_row]),
            self.position.at[row].set(other.position[other_row]),
        )


def write_slot(
    stack: Float[Array, "l b t k e"],
    layer: Int[Array, ""],
    new: Float[Array, "b *s k e"],
    slot: Int[Array, "b *s"],
) -> Float[Array, "l b t k e"]:
    """``stack[layer, row, slot[row]] = new[row]``, one slot a row or several; one outside the cache writes nothing."""
    return jax.vmap(
        lambda cache, x, at: cache.at[layer, at].set(x.astype(cache.dtype), mode="drop"),
        in_axes=(1, 0, 0),
        out_axes=1,
    )(stack, new, slot)
