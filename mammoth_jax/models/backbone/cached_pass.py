"""A pass of new tokens over a cache: what a decoding step and the continuation of a conversation have in common."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.stack import scan_layers
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.config import DecoderConfig, layer_plan
from mammoth_jax.models.backbone.layer import DecoderLayer, SequenceContext
from mammoth_jax.ops.attention import CacheView, decode_attention

NewEntries = tuple[Float[Array, "l b k s e"], Float[Array, "l b k s e"]]


def cached_pass(
    config: DecoderConfig,
    segments: Sequence[Any],
    h: Float[Array, "b s d"],
    context: SequenceContext,
    cache: KVCache,
    *,
    deepstack: Float[Array, "n b s d"] | None = None,
    shares: Float[Array, " l1"] | None = None,
) -> tuple[Float[Array, "b s d"], Float[Array, "b s d"] | None, NewEntries]:
    """All layers over embedded tokens ``h``: (last state, sum of the states with ``shares``, new keys and values).

    The cache itself is only read.  Not to be differentiated.

    Args:
      config, segments: the decoder's.
      h: embeddings of the new tokens, right-padded.
      context: their rope tables and experts.
      cache: what came before.
      deepstack: features to add after the first ``n`` layers.
      shares: weight of each of the ``num_layers + 1`` states in the sum (float32); none is made without.
    """
    total = None if shares is None else shares[0] * h.astype(jnp.float32)
    written = []

    def body(carry, layer: DecoderLayer, item):
        h, total = carry
        index, added, share = item
        view = CacheView(cache.keys, cache.values, index, cache.start, cache.length)
        query, key, value = layer.attention.heads(layer.attention_norm(h), context)
        mixed = decode_attention(query, key, value, view)
        h = constrain(h + layer.attention.project(mixed, context), "batch", "length", None)
        h = layer.feed_forward(h, context)
        h = h if added is None else h + added.astype(h.dtype)
        total = None if total is None else total + share * h.astype(jnp.float32)
        return (h, total), (jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))

    for segment, layers in zip(layer_plan(config), segments, strict=True):
        own = slice(segment.start, segment.stop)
        added = deepstack[own] if deepstack is not None and segment.has_deepstack else None
        items = (jnp.arange(segment.start, segment.stop), added, None if shares is None else shares[1:][own])
        if isinstance(layers, DecoderLayer):
            layers = layers.for_expert(context.expert).without_gradients()
        (h, total), entries = scan_layers(body, (h, total), layers, items)
        written.append(entries)
    keys, values = zip(*written, strict=True)
    return h, total, (jnp.concatenate(keys), jnp.concatenate(values))
