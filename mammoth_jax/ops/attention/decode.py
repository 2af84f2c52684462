"""Attention of new tokens over a preallocated cache that already holds them."""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.reference import masked_softmax


def extend_attention(
    query: Float[Array, "b s h e"],
    key_cache: Float[Array, "b t k e"],
    value_cache: Float[Array, "b t k e"],
    start: Int[Array, " b"],
    length: Int[Array, " b"],
    scale: float | None = None,
) -> Float[Array, "b s h e"]:
    """Query ``i`` of a row attends to its cache slots ``start <= slot <= length + i``.

    ``length`` counts the slots before the first new token; slots outside may hold anything finite.
    """
    b, s, h, e = query.shape
    t, k = key_cache.shape[1:3]
    slots = jnp.arange(t)[None, None]
    last = length[:, None, None] + jnp.arange(s)[None, :, None]
    allowed = (slots >= start[:, None, None]) & (slots <= last)
    grouped = query.reshape(b, s, k, h // k, e)
    scores = jnp.einsum("bskge,btke->bkgst", grouped, key_cache, preferred_element_type=jnp.float32)
    weights = masked_softmax(scores * (e**-0.5 if scale is None else scale), allowed[:, None, None])
    out = jnp.einsum("bkgst,btke->bskge", weights.astype(value_cache.dtype), value_cache)
    return out.reshape(b, s, h, e)


def decode_attention(
    query: Float[Array, "b h e"],
    key_cache: Float[Array, "b t k e"],
    value_cache: Float[Array, "b t k e"],
    start: Int[Array, " b"],
    length: Int[Array, " b"],
    scale: float | None = None,
) -> Float[Array, "b h e"]:
    """One query a row, which attends to ``start <= slot < length``: its own token is the last of them."""
    return extend_attention(query[:, None], key_cache, value_cache, start, length - 1, scale)[:, 0]
