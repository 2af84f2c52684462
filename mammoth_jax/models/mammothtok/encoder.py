"""Picture to one vector a token: the AIMv2 encoder at native resolution and the projection to code width.

Fini et al. 2024, "Multimodal autoregressive pre-training of large vision encoders": patches, RMSNorm, fixed
sine-cosine positions, pre-norm blocks with SwiGLU and no biases, a final RMSNorm.
"""

import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import XavierUniform
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.mammothtok.config import EncoderConfig
from mammoth_jax.ops.attention import attention

_EPS = 1e-5


class EncoderBlock(nnx.Module):
    """Pre-norm self-attention over all patches, then SwiGLU."""

    def __init__(self, config: EncoderConfig):
        heads = (config.num_heads, config.width // config.num_heads)
        self.norm1 = RMSNorm(config.width, eps=_EPS)
        self.qkv = Linear(config.width, (3, *heads), axes=("embed", (None, "heads", None)))
        self.out = Linear(heads, config.width, axes=(("heads", None), "embed"))
        self.norm2 = RMSNorm(config.width, eps=_EPS)
        self.mlp = SwiGLU(config.width, config.mlp_width)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        qkv = self.qkv(self.norm1(x))
        x = x + self.out(attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]))
        x = x + self.mlp(self.norm2(x))
        return constrain(x, "batch", "length", None)


class TokenEncoder(nnx.Module):
    """A picture whose sides divide by the patch, as one vector of code width a patch."""

    def __init__(self, config: EncoderConfig, code_dim: int):
        self.patch_size = config.patch_size
        patch = 3 * config.patch_size**2
        self.patches = Linear(patch, config.width, axes=(None, "embed"), bias=True, init=XavierUniform())
        self.patch_norm = RMSNorm(config.width, eps=_EPS)
        self.blocks = stack_layers(lambda: EncoderBlock(config), config.num_layers)
        self.final_norm = RMSNorm(config.width, eps=_EPS)
        self.to_code = Linear(config.width, code_dim, axes=("embed", None), bias=True)

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b gr gc c"]:
        """Vectors to be quantised, for a picture in [-1, 1].

        Raises:
          InputError: a side is not a positive multiple of the patch size.
        """
        gr, gc = self.grid(picture)
        features = self.features(picture)
        return self.to_code(features).reshape(features.shape[0], gr, gc, -1)

    def grid(self, picture: Float[Array, "b rows cols 3"]) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        rows, cols, p = picture.shape[1], picture.shape[2], self.patch_size
        if rows < p or cols < p or rows % p or cols % p:
            raise InputError(
                f"picture of {cols}x{rows} pixels: both sides must be multiples of {p}; resize it first"
            )
        return rows // p, cols // p

    def features(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b n d"]:
        """Normalised features of the patches in raster order."""
        gr, gc = self.grid(picture)
        x = self.embed(picture)
        x = x + sincos_positions(gr, gc, x.shape[-1]).astype(x.dtype)
        x, _ = scan_layers(lambda h, block, _: (block(h), None), x, self.blocks)
        return self.final_norm(x)

    def embed(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b n d"]:
        """Normalised patch embeddings, without positions."""
        (gr, gc), p = self.grid(picture), self.patch_size
        x = picture.reshape(picture.shape[0], gr, p, gc, p, 3)
        x = x.transpose(0, 1, 3, 5, 2, 4)  # a patch is flattened as (channel, row, column)
        return self.patch_norm(self.patches(x.reshape(picture.shape[0], gr * gc, 3 * p * p)))


def sincos_positions(rows: int, cols: int, width: int) -> Float[Array, "n d"]:
    """Fixed position table of a grid in raster order: the column in the first half of the width, the row in the second.

    Each half is ``[sin | cos]`` of the index times ``10000 ** (-i / (width / 4))``.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)

    def waves(count: int) -> Float[Array, "k half"]:
        angle = jnp.arange(count, dtype=jnp.float32)[:, None] * frequency
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)

    shape = (rows, cols, 2 * quarter)
    column = jnp.broadcast_to(waves(cols)[None], shape)
    row = jnp.broadcast_to(waves(rows)[:, None], shape)
    return jnp.concatenate([column, row], axis=-1).reshape(rows * cols, 4 * quarter)
