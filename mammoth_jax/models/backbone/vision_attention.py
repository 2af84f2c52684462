"""Self-attention of the vision towers and its two-axis rope."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.rope import rotate_half

ROPE_THETA = 10000.0


def rope_angles(rope_ids: Int[Array, "n 2"], head_dim: int) -> Float[Array, "n half"]:
    """Angles of each patch, float32: the first ``head_dim / 4`` turn with its row, the others with its column."""
    quarter = head_dim // 4
    frequencies = jnp.asarray(ROPE_THETA ** -(np.arange(quarter) / quarter), jnp.float32)
    angles = rope_ids.astype(jnp.float32)[:, :, None] * frequencies
    return angles.reshape(rope_ids.shape[0], 2 * quarter)


class VisionAttention(nnx.Module):
    """Self-attention with one joint projection ``[d] -> [3, heads, e]`` and biases."""

    def __init__(self, hidden_size: int, num_heads: int):
        head_dim = hidden_size // num_heads
        self.qkv = Linear(
            hidden_size, (3, num_heads, head_dim), axes=("embed", (None, "heads", None)), bias=True
        )
        self.out = Linear((num_heads, head_dim), hidden_size, axes=(("heads", None), "embed"), bias=True)

    def __call__(
        self, x: Float[Array, "n d"], angles: Float[Array, "n half"], segments: Int[Array, " n"]
    ) -> Float[Array, "n d"]:
        """Attends within equal ``segments``; 0 is padding."""
        query, key, value = jnp.moveaxis(self.qkv(x), 1, 0)[:, None]
        cos, sin = jnp.cos(angles)[None], jnp.sin(angles)[None]
        mixed = attention(
            rotate_half(query, cos, sin),
            rotate_half(key, cos, sin),
            value,
            query_segments=segments[None],
            key_segments=segments[None],
        )
        return self.out(mixed[0])
