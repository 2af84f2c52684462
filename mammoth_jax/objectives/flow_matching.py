"""Flow matching on the linear path: mean squared error of the predicted velocity (paper section 3.1.2)."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PictureLosses:
    """Per-picture losses and their weights; one place divides, after the sum over all devices."""

    losses: Float[Array, " b"]
    weights: Float[Array, " b"]

    @property
    def total(self) -> Float[Array, ""]:
        """Weighted sum of the losses."""
        return jnp.sum(self.losses * self.weights)

    @property
    def weight(self) -> Float[Array, ""]:
        """Sum of the weights: the number of counted pictures."""
        return jnp.sum(self.weights)


def flow_matching_losses(
    predicted: Float[Array, "b n p"],
    target: Float[Array, "b n p"],
    valid: Bool[Array, "b n"],
    weights: Float[Array, " b"] | None = None,
) -> PictureLosses:
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
    return PictureLosses(losses, jnp.where(count > 0, given, 0.0))
