"""Pixel losses of a reconstruction: absolute and squared difference per element, of pictures in [-1, 1]."""

import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float
from mammoth_jax.objectives.losses import LossSum


def l1_loss(
    picture: Float[Array, "b rows cols c"],
    target: Float[Array, "b rows cols c"],
    weights: Float[Array, " b"] | None = None,
) -> LossSum:
    """``|picture - target|``; ``weights`` are those of the pictures, 1 by default."""
    return _over_elements(jnp.abs(_difference(picture, target)), weights)


def l2_loss(
    picture: Float[Array, "b rows cols c"],
    target: Float[Array, "b rows cols c"],
    weights: Float[Array, " b"] | None = None,
) -> LossSum:
    """``(picture - target)^2``; ``weights`` are those of the pictures, 1 by default."""
    return _over_elements(jnp.square(_difference(picture, target)), weights)


def _difference(picture: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    return at_least_float32(picture) - at_least_float32(target)


def _over_elements(losses: Float[Array, "b rows cols c"], weights: Float[Array, " b"] | None) -> LossSum:
    if weights is None:
        return LossSum(jnp.sum(losses), jnp.asarray(losses.size, losses.dtype))
    weights = weights.astype(losses.dtype)
    elements = losses[0].size
    return LossSum(jnp.sum(losses * weights[:, None, None, None]), elements * jnp.sum(weights))
