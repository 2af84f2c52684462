"""Lookup tables."""

import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import Normal
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int


class Embedding(nnx.Module):
    """A table ``[rows, width]``."""

    def __init__(self, rows: int, width: int):
        self.table = param((rows, width), ("vocab", "embed"), Normal(0.02))

    def __call__(self, ids: Int[Array, "..."], dtype: jnp.dtype | None = None) -> Float[Array, "... d"]:
        """Rows ``ids`` (clipped into the table), in ``dtype`` or the table's own."""
        table = constrain(
            self.table[...], "vocab", None
        )  # whole rows, so that a lookup is local to a vocabulary shard
        rows = jnp.take(table, ids, axis=0, mode="clip")
        return rows if dtype is None else rows.astype(dtype)
