"""Rotary position embeddings: rotations applied to query and key heads, always in float32.

Two conventions occur.  *Half* rotation pairs feature ``i`` with ``i + e/2`` (the decoders, the vision towers);
*interleaved* rotation pairs ``2i`` with ``2i + 1`` (the DiT, the MammothTok decoder).
"""

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float


def rotate_half(
    x: Float[Array, "b s h e"], cos: Float[Array, "b s half"], sin: Float[Array, "b s half"]
) -> Float[Array, "b s h e"]:
    """Rotates the pairs ``(x[i], x[i + e/2])``; ``cos`` and ``sin`` hold one value a pair."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def rotate_interleaved(
    x: Float[Array, "b s h e"], cos: Float[Array, "b s half"], sin: Float[Array, "b s half"]
) -> Float[Array, "b s h e"]:
    """Rotates the pairs ``(x[2i], x[2i + 1])``; ``cos`` and ``sin`` hold one value a pair."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    cos, sin = cos[:, :, None], sin[:, :, None]
    even, odd = pairs[..., 0], pairs[..., 1]
    return (
        jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape).astype(x.dtype)
    )
