"""From raw scores to a token: guidance, penalties, filters, in the release's order, each row with its own settings."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int, PRNGKeyArray

MIN_TOKENS_TO_KEEP = 3  # top-k and top-p never leave fewer visual tokens (release)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """One value a row: guidance (at most 1 is off), temperature (0 is greedy), top-k (0 is off), top-p (1 is off)."""

    guidance: Float[Array, " r"]
    temperature: Float[Array, " r"]
    top_k: Int[Array, " r"]
    top_p: Float[Array, " r"]
    repetition_penalty: Float[Array, " r"]


def guide(
    conditional: Float[Array, "r c"], unconditional: Float[Array, "r c"], guidance: Float[Array, " r"]
) -> Float[Array, "r c"]:
    """``u + scale (c - u)`` on raw scores; rows whose scale is at most 1 keep ``c`` exactly."""
    guided = unconditional + (conditional - unconditional) * guidance[:, None]
    return jnp.where(guidance[:, None] > 1, guided, conditional)


def process(
    scores: Float[Array, "r c"],
    settings: SamplingSettings,
    seen: Bool[Array, "r c"],
    allowed: Bool[Array, " c"],
    min_tokens: int = MIN_TOKENS_TO_KEEP,
) -> Float[Array, "r c"]:
    """Repetition penalty on ``seen`` tokens, temperature, the allowed range, top-k, top-p; excluded ones are -inf.

    Top-k and top-p leave at least ``min_tokens`` tokens.
    """
    penalty = settings.repetition_penalty[:, None]
    scores = jnp.where(seen, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)
    scores = scores / jnp.where(settings.temperature > 0, settings.temperature, 1.0)[:, None]
    scores = jnp.where(allowed, scores, -jnp.inf)
    filtered = (settings.top_k > 0) | (settings.top_p < 1)
    return jax.lax.cond(jnp.any(filtered), lambda s: _filter(s, settings, min_tokens), lambda s: s, scores)


def _filter(scores: Float[Array, "r c"], settings: SamplingSettings, min_tokens: int) -> Float[Array, "r c"]:
    """Keeps the top-k scores, then of these the smallest set whose probability reaches top-p; ties stay together."""
    columns = scores.shape[1]
    k = jnp.where(settings.top_k > 0, jnp.clip(settings.top_k, min_tokens, columns), columns)
    ranked = jnp.sort(scores, axis=-1, descending=True)
    rank = jnp.arange(columns)[None]
    ranked = jnp.where(rank < k[:, None], ranked, -jnp.inf)
    probability = jax.nn.softmax(ranked, axis=-1)
    above = jnp.cumsum(probability, axis=-1) - probability
    keep = (above < settings.top_p[:, None]) | (settings.top_p[:, None] >= 1)
    keep = (keep | (rank < min_tokens)) & (rank < k[:, None])
    last = jnp.sum(keep, axis=-1, keepdims=True) - 1
    threshold = jnp.take_along_axis(ranked, last, axis=-1)
    return jnp.where(scores >= threshold, scores, -jnp.inf)


def choose(
    scores: Float[Array, "r c"], temperature: Float[Array, " r"], keys: PRNGKeyArray
) -> Int[Array, " r"]:
    """A column a row: drawn with the row's own key, or the best one where the temperature is 0."""
    best = jnp.argmax(scores, axis=-1)

    def draw() -> Int[Array, " r"]:
        return jnp.where(temperature > 0, jax.vmap(jax.random.categorical)(keys, scores), best)

    return jax.lax.cond(jnp.any(temperature > 0), draw, lambda: best)
