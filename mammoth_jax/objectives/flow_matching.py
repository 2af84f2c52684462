"""Flow matching on the linear path: mean squared error of the predicted velocity (paper section 3.1.2)."""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int
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
    own = packed_flow_matching_losses(predicted, target, valid.astype(jnp.int32), 1)
    given = 1.0 if weights is None else weights.astype(jnp.float32)
    return WeightedLosses(own.losses[:, 0], own.weights[:, 0] * given)


def packed_flow_matching_losses(
    predicted: Float[Array, "b n p"],
    target: Float[Array, "b n p"],
    sample: Int[Array, "b n"],
    num_samples: int,
) -> WeightedLosses:
    """The same for rows of several samples: ``[b, num_samples]`` means, so that a picture's size does not weigh.

    Args:
      predicted, target: velocities.
      sample: the sample of each token, from 1 on; 0 is padding.
      num_samples: samples of a row at most; one without tokens has weight 0.
    """
    square = jnp.square(predicted.astype(jnp.float32) - target.astype(jnp.float32))
    tokens = jnp.mean(square, axis=-1)[..., None]
    own = sample[..., None] == jnp.arange(1, num_samples + 1)
    count = jnp.sum(own, axis=1)
    losses = jnp.sum(jnp.where(own, tokens, 0.0), axis=1) / jnp.maximum(count, 1)
    return WeightedLosses(losses, (count > 0).astype(jnp.float32))
