"""Self-attention of the vision towers and its two-axis rope."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.rope import rotate_half

ROPE_THETA = 10000.0


def rope_angles(rope_ids: Int[Array, "*b n 2"], head_dim: int) -> Float[Array, "*b n half"]:
    """Angles of each patch, float32: the first ``head_dim / 4`` turn with its row, the others with its column."""
    quarter = head_dim // 4
    frequencies = jnp.asarray(ROPE_THETA ** -(np.arange(quarter) / quarter), jnp.float32)
    angles = rope_ids.astype(jnp.float32)[..., None] * frequencies
    return angles.reshape(*rope_ids.shape[:-1], 2 * quarter)


class VisionAttention(nnx.Module):
    """Self-attention with one joint projection ``[d] -> [3, heads, e]`` and biases."""

    def __init__(self, hidden_size: int, num_heads: int):
        head_dim = hidden_size // num_heads
        self.qkv = Linear(
            hidden_size, (3, num_heads, head_dim), axes=("embed", (None, "heads", None)), bias=True
        )
        self.out = Linear((num_heads, head_dim), hidden_size, axes=(("heads", None), "embed"), bias=True)

    def __call__(
        self, x: Float[Array, "b n d"], angles: Float[Array, "b n half"], segments: Int[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        """Attends within equal ``segments``; 0 is padding."""
        query, key, value = jnp.moveaxis(self.qkv(x), 2, 0)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        mixed = attention(
            rotate_half(query, cos, sin),
            rotate_half(key, cos, sin),
            value,
            query_segments=segments,
            key_segments=segments,
        )
        return self.out(mixed)
