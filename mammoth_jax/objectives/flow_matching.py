"""Flow matching on the linear path: mean squared error of the predicted velocity (paper section 3.1.2)."""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.objectives.losses import WeightedLosses


def flow_matching_losses(
    predicted: Float[Array, "b n p"],
    target: Float[Array, "b n p"],
    valid: Bool[Array, "b n"],
    weights: Float[Array, " b"] | None = None,
) -> WeightedLosses:
    """The mean squared error over each picture's valid tokens, in float32.

    Args:
      predicted: the network's velocity.
      target: ``flow.path.velocity_target`` of the same noise and data.
      valid: false at padding tokens.
      weights: of each picture, 1 by default; 0 leaves a row out. A picture without valid tokens has weight 0.
    """
    square = jnp.square(predicted.astype(jnp.float32) - target.astype(jnp.float32))
    count = jnp.sum(valid, axis=1)
    total = jnp.sum(jnp.where(valid[..., None], square, 0.0), axis=(1, 2))
    losses = total / (jnp.maximum(count, 1) * predicted.shape[-1])
    given = jnp.ones(losses.shape) if weights is None else weights.astype(jnp.float32)
    return WeightedLosses(losses, jnp.where(count > 0, given, 0.0))
