"""Continuing a cache by several tokens a row: the later turns of a conversation, read in one pass."""

import jax.numpy as jnp

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.cached_pass import cached_pass
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.layer import SequenceContext
from mammoth_jax.ops.mrope import mrope_tables


def extend(
    decoder: Decoder,
    ids: Int[Array, "b s"],
    lengths: Int[Array, " b"],
    positions: Int[Array, "3 b s"],
    cache: KVCache,
    *,
    embeddings: Float[Array, "b s d"] | None = None,
    deepstack: Float[Array, "n b s d"] | None = None,
) -> tuple[Float[Array, "b s d"], KVCache]:
    """Feeds ``lengths`` new tokens a row and returns (final-normed states, the cache grown by them).

    The result is that of a pass over the whole sequence.  What follows goes on one after the largest new position.

    Args:
      ids: new tokens, right-padded; the padding is written nowhere and its states hold nothing of use.
      lengths: new tokens of each row, 0 for a row that stays as it is.  They must fit the cache.
      positions: rope positions of the new tokens on the three axes.
      cache: what came before; each row is continued at its own length.
      embeddings: replaces the lookup (vision features already in place).
      deepstack: features to add after the first ``n`` layers, zero where there is no picture.
    """
    config = decoder.config
    place = jnp.arange(ids.shape[1])[None]
    valid = place < lengths[:, None]
    cos, sin = mrope_tables(positions, config.mrope_section, config.mrope_layout, config.rope_theta)
    context = SequenceContext(cos, sin, None, decoder.expert_of(ids))
    h = decoder.embed_ids(ids) if embeddings is None else embeddings

    h, _, (keys, values) = cached_pass(
        config, decoder.segments, constrain(h, "batch", "length", None), context, cache, deepstack=deepstack
    )
    last = jnp.max(jnp.where(valid[None], positions, -1), axis=(0, 2))
    position = jnp.where(lengths > 0, last + 1, cache.position).astype(cache.position.dtype)
    return decoder.norm(h), cache.write(keys, values, lengths, position)


def last_states(hidden: Float[Array, "b s d"], lengths: Int[Array, " b"]) -> Float[Array, "b d"]:
    """The state of each row's last token."""
    return jnp.take_along_axis(hidden, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
