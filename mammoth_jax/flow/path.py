"""The linear path between noise (time 0) and data (time 1): ``x_t = t * data + (1 - t) * noise``.

Its velocity is ``data - noise``, the network's target (rectified flow; paper section 3.1.2).
"""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float


def expand_time(t: Float[Array, " b"], x: Float[Array, "b *rest"]) -> Float[Array, "b *ones"]:
    """One time a row, shaped to broadcast against ``x``."""
    return jnp.reshape(t, (*t.shape, *(1,) * (x.ndim - t.ndim)))


def interpolate(
    noise: Float[Array, "b *rest"], data: Float[Array, "b *rest"], t: Float[Array, " b"]
) -> Float[Array, "b *rest"]:
    """The point of the path at time ``t``."""
    t = expand_time(t, data)
    return t * data + (1 - t) * noise


def velocity_target(noise: Float[Array, "b *rest"], data: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
    """The path's derivative with respect to time."""
    return data - noise


def predict_data(
    x: Float[Array, "b *rest"], velocity: Float[Array, "b *rest"], t: Float[Array, " b"]
) -> Float[Array, "b *rest"]:
    """The end of the straight line through ``x`` at time ``t``."""
    return x + (1 - expand_time(t, x)) * velocity


def predict_noise(
    x: Float[Array, "b *rest"], velocity: Float[Array, "b *rest"], t: Float[Array, " b"]
) -> Float[Array, "b *rest"]:
    """The start of the straight line through ``x`` at time ``t``."""
    return x - expand_time(t, x) * velocity
