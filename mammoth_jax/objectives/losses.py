"""What every objective returns: sums and weights, never a quotient.

One place divides, after the sum over all devices and accumulation steps, so that packing, padding and sharding do not
change a loss.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSum:
    """A weighted sum of a loss and the weight to divide it by."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """``total / weight``, for a batch that is complete."""
        return self.total / self.weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WeightedLosses:
    """A loss for every token or picture and how much each counts; those that do not count have weight 0."""

    losses: Float[Array, "..."]
    weights: Float[Array, "..."]

    def sum(self) -> LossSum:
        """The weighted sum and the sum of the weights."""
        return LossSum(jnp.sum(self.losses * self.weights), jnp.sum(self.weights))
