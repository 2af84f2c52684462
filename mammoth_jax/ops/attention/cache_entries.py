"""How the keys or the values of a cache are held: as they are, or as int8 with a scale a token and head.

Entries of all layers are one tree of arrays ``[l, b, k, t, ...]``: head-major, so that what a kernel reads of a head
is contiguous and no dimension of one or a few heads is tiled.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int

INT8_LARGEST = 127


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Entries:
    """``codes * scale``, a scale for the ``e`` numbers of each token and head (half the bytes of bfloat16)."""

    codes: Int[Array, "*lead t e"]
    scale: Float[Array, "*lead t"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers that are held."""
        return self.codes.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Of what is held."""
        return self.codes.dtype


Entries = Array | Int8Entries


def to_int8(x: Float[Array, "*lead t e"]) -> Int8Entries:
    """The nearest codes; the largest number of a token and head is 127 of its scales."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / INT8_LARGEST
    codes = jnp.round(x / jnp.maximum(scale, 1e-30)[..., None])
    return Int8Entries(codes.astype(jnp.int8), scale)


def encode_like(entries: Entries, x: Float[Array, "*lead t e"]) -> Entries:
    """``x`` in the form of ``entries``."""
    return to_int8(x) if isinstance(entries, Int8Entries) else x.astype(entries.dtype)


def products(query: Float[Array, "b k m e"], keys: Entries) -> Float[Array, "b k m t"]:
    """``query . key`` in float32; int8 codes are scaled after the product, so that no float copy of them is needed."""
    codes = keys.codes if isinstance(keys, Int8Entries) else keys
    scores = jnp.einsum(
        "bkme,bkte->bkmt", query, codes.astype(query.dtype), preferred_element_type=jnp.float32
    )
    return scores * keys.scale[:, :, None] if isinstance(keys, Int8Entries) else scores


def weighted_sum(
    weights: Float[Array, "b k m t"], values: Entries, dtype: jnp.dtype
) -> Float[Array, "b k m e"]:
    """``weights . value`` in float32; the factors are rounded to ``dtype``, the model's."""
    codes = values.codes if isinstance(values, Int8Entries) else values
    if isinstance(values, Int8Entries):
        weights = weights * values.scale[:, :, None]
    return jnp.einsum(
        "bkmt,bkte->bkme", weights.astype(dtype), codes.astype(dtype), preferred_element_type=jnp.float32
    )
