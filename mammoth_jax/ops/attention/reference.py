"""Attention written out: the definition that every kernel is compared with.  Holds all scores."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask


@dataclasses.dataclass(frozen=True)
class Reference:
    """The object of the table."""

    name = "reference"

    def lacks(self, task: AttentionTask) -> str | None:
        """Nothing but memory, over which the table watches."""
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        b, s, h, e = query.shape
        t, k = key.shape[1:3]
        grouped = query.reshape(b, s, k, h // k, e)
        scores = jnp.einsum("bskge,btke->bkgst", grouped, key, preferred_element_type=jnp.float32)
        weights = masked_softmax(scores * scale, mask.allowed(s, t)[:, None, None])
        out = jnp.einsum("bkgst,btke->bskge", weights.astype(value.dtype), value)
        return out.reshape(b, s, h, e)


REFERENCE = Reference()


def masked_softmax(scores: Float[Array, "... t"], allowed: Bool[Array, "... t"]) -> Float[Array, "... t"]:
    """Soft-max over the allowed entries in float32; a row without any is all zeros, with zero gradient."""
    scores = jnp.where(allowed, scores.astype(jnp.float32), -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True, initial=-1e30)
    weights = jnp.exp(scores - jax.lax.stop_gradient(top))
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-30)
