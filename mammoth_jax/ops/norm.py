"""Normalisations; statistics in float32 (float64 for float64), result in the input's dtype."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float


def rms_norm(x: Float[Array, "... d"], scale: Float[Array, " d"], eps: float) -> Float[Array, "... d"]:
    """``x / sqrt(mean(x^2) + eps) * scale``."""
    y = at_least_float32(x)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return (y * scale.astype(y.dtype)).astype(x.dtype)


def layer_norm(
    x: Float[Array, "... d"], scale: Float[Array, " d"] | None, bias: Float[Array, " d"] | None, eps: float
) -> Float[Array, "... d"]:
    """``(x - mean) / sqrt(var + eps)``, then scale and bias where given."""
    y = at_least_float32(x)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    y = y if scale is None else y * scale.astype(y.dtype)
    y = y if bias is None else y + bias.astype(y.dtype)
    return y.astype(x.dtype)


def group_norm(
    x: Float[Array, "b rows cols c"],
    num_groups: int,
    scale: Float[Array, " c"] | None,
    bias: Float[Array, " c"] | None,
    eps: float,
) -> Float[Array, "b rows cols c"]:
    """Normalises over rows, columns and the channels of a group."""
    y = at_least_float32(x)
    # Sums over places first, over a group's few channels after: never an array of the picture's size cut into groups,
    # which a CPU takes seven times as long for.
    y = y - _group_mean(y, num_groups)
    y = y * jax.lax.rsqrt(_group_mean(jnp.square(y), num_groups) + eps)
    y = y if scale is None else y * scale.astype(y.dtype)
    y = y if bias is None else y + bias.astype(y.dtype)
    return y.astype(x.dtype)


def _group_mean(x: Float[Array, "b rows cols c"], num_groups: int) -> Float[Array, "b 1 1 c"]:
    size = x.shape[-1] // num_groups
    mean = jnp.mean(jnp.mean(x, axis=(1, 2)).reshape(x.shape[0], num_groups, size), axis=-1)
    return jnp.repeat(mean, size, axis=-1)[:, None, None]


def l2_normalize(x: Float[Array, "... d"], eps: float = 1e-12) -> Float[Array, "... d"]:
    """``x / max(|x|, eps)`` along the last axis, in float32, with a finite gradient at zero."""
    y = at_least_float32(x)
    square = jnp.sum(jnp.square(y), axis=-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.maximum(square, eps * eps))).astype(x.dtype)
