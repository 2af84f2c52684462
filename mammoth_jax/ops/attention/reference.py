"""Attention written out: the definition that every kernel is compared with.  Holds all scores."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int


def reference_attention(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b t k e"],
    value: Float[Array, "b t k e"],
    *,
    query_segments: Int[Array, "b s"] | None,
    key_segments: Int[Array, "b t"] | None,
    causal: bool,
    scale: float | None,
) -> Float[Array, "b s h e"]:
    """See :func:`mammoth_jax.ops.attention.attention`."""
    b, s, h, e = query.shape
    t, k = key.shape[1:3]
    allowed = jnp.ones((1, s, t), bool)
    if query_segments is not None or key_segments is not None:
        if query_segments is None or key_segments is None:
            raise ValueError("give segments for both queries and keys, or for neither")
        allowed = (query_segments[:, :, None] == key_segments[:, None, :]) & (query_segments[:, :, None] > 0)
    if causal:
        allowed = allowed & (jnp.arange(s)[:, None] >= jnp.arange(t)[None, :])
    grouped = query.reshape(b, s, k, h // k, e)
    scores = jnp.einsum("bskge,btke->bkgst", grouped, key, preferred_element_type=jnp.float32)
    weights = masked_softmax(scores * (e**-0.5 if scale is None else scale), allowed[:, None, None])
    out = jnp.einsum("bkgst,btke->bskge", weights.astype(value.dtype), value)
    return out.reshape(b, s, h, e)


def masked_softmax(scores: Float[Array, "... t"], allowed: Bool[Array, "... t"]) -> Float[Array, "... t"]:
    """Soft-max over the allowed entries in float32; a row without any is all zeros, with zero gradient."""
    scores = jnp.where(allowed, scores.astype(jnp.float32), -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True, initial=-1e30)
    weights = jnp.exp(scores - jax.lax.stop_gradient(top))
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-30)
