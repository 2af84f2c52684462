"""Attention of one new token a row over a preallocated cache."""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.reference import masked_softmax


def decode_attention(
    query: Float[Array, "b h e"],
    key_cache: Float[Array, "b t k e"],
    value_cache: Float[Array, "b t k e"],
    start: Int[Array, " b"],
    length: Int[Array, " b"],
    scale: float | None = None,
) -> Float[Array, "b h e"]:
    """A row attends to its cache slots ``start <= slot < length``; slots outside may hold anything finite."""
    b, h, e = query.shape
    k = key_cache.shape[2]
    slots = jnp.arange(key_cache.shape[1])[None]
    allowed = (slots >= start[:, None]) & (slots < length[:, None])
    grouped = query.reshape(b, k, h // k, e)
    scores = jnp.einsum("bkge,btke->bkgt", grouped, key_cache, preferred_element_type=jnp.float32)
    weights = masked_softmax(scores * (e**-0.5 if scale is None else scale), allowed[:, None, None])
    out = jnp.einsum("bkgt,btke->bkge", weights.astype(value_cache.dtype), value_cache)
    return out.reshape(b, h, e)
