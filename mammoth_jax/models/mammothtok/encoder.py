"""Picture to one vector a token: the AIMv2 encoder at native resolution and the projection to code width.

Fini et al. 2024, "Multimodal autoregressive pre-training of large vision encoders": patches, RMSNorm, fixed
sine-cosine positions, pre-norm blocks with SwiGLU and no biases, a final RMSNorm.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import XavierUniform
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.mammothtok.config import EncoderConfig
from mammoth_jax.ops.attention import attention

_EPS = 1e-5
AnyArray = Any
"""NumPy on the host, JAX inside a program."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PatchSequence:
    """Pictures as padded sequences of patches, so that one program encodes pictures of any grid.

    Attributes:
        patches: pixels of each patch, flattened as (channel, row, column).
        cells: row and column of each patch in its picture.
        segments: which picture of its sequence a patch belongs to, from 1 on; 0 is padding.
    """

    patches: Float[AnyArray, "b n p"]
    cells: Int[AnyArray, "b n 2"]
    segments: Int[AnyArray, "b n"]


class EncoderBlock(nnx.Module):
    """Pre-norm self-attention over all patches (of a segment), then SwiGLU."""

    def __init__(self, config: EncoderConfig):
        heads = (config.num_heads, config.width // config.num_heads)
        self.norm1 = RMSNorm(config.width, eps=_EPS)
        self.qkv = Linear(config.width, (3, *heads), axes=("embed", (None, "heads", None)))
        self.out = Linear(heads, config.width, axes=(("heads", None), "embed"))
        self.norm2 = RMSNorm(config.width, eps=_EPS)
        self.mlp = SwiGLU(config.width, config.mlp_width)

    def __call__(
        self, x: Float[Array, "b n d"], segments: Int[Array, "b n"] | None = None
    ) -> Float[Array, "b n d"]:
        qkv = self.qkv(self.norm1(x))
        read = attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], query_segments=segments, key_segments=segments
        )
        x = x + self.out(read)
        x = x + self.mlp(self.norm2(x))
        return constrain(x, "batch", "length", None)


class AIMv2(nnx.Module):
    """The transformer over a picture's patches."""

    def __init__(self, config: EncoderConfig):
        self.patch_size = config.patch_size
        patch = 3 * config.patch_size**2
        self.patches = Linear(patch, config.width, axes=(None, "embed"), bias=True, init=XavierUniform())
        self.patch_norm = RMSNorm(config.width, eps=_EPS)
        self.blocks = stack_layers(lambda: EncoderBlock(config), config.num_layers)
        self.final_norm = RMSNorm(config.width, eps=_EPS)

    def grid(self, picture: Float[Array, "b rows cols 3"]) -> tuple[int, int]:
        """Rows and columns of the token grid.

        Raises:
          InputError: a side is not a positive multiple of the patch size.
        """
        rows, cols, p = picture.shape[1], picture.shape[2], self.patch_size
        if rows < p or cols < p or rows % p or cols % p:
            raise InputError(
                f"picture of {cols}x{rows} pixels: both sides must be multiples of {p}; resize it first"
            )
        return rows // p, cols // p

    def features(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b n d"]:
        """Normalised features of the patches in raster order."""
        x = self.embed(picture)
        return self.transform(x + sincos_positions(*self.grid(picture), x.shape[-1]).astype(x.dtype))

    def embed(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b n d"]:
        """Normalised patch embeddings, without positions."""
        gr, gc = self.grid(picture)
        x = cut(picture, gr, gc)
        return self.patch_norm(self.patches(x))

    def transform(
        self, x: Float[Array, "b n d"], segments: Int[Array, "b n"] | None = None
    ) -> Float[Array, "b n d"]:
        """Normalised features from embeddings with positions; patches see those of their segment."""
        x, _ = scan_layers(lambda h, block, _: (block(h, segments), None), x, self.blocks)
        return self.final_norm(x)


class TokenEncoder(AIMv2):
    """A picture whose sides divide by the patch, as one vector of code width a patch."""

    def __init__(self, config: EncoderConfig, code_dim: int):
        super().__init__(config)
        self.to_code = Linear(config.width, code_dim, axes=("embed", None), bias=True)

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b gr gc c"]:
        """Vectors to be quantised, for a picture in [-1, 1].

        Raises:
          InputError: a side is not a positive multiple of the patch size.
        """
        gr, gc = self.grid(picture)
        features = self.features(picture)
        return self.to_code(features).reshape(features.shape[0], gr, gc, -1)

    def read(self, sequence: PatchSequence) -> Float[Array, "b n c"]:
        """The same for sequences of patches: a vector each, that of a picture's patch as if the picture were alone.

        Those of the padding hold nothing of use.
        """
        x = self.patch_norm(self.patches(sequence.patches))
        x = x + sincos_at(sequence.cells, x.shape[-1]).astype(x.dtype)
        return self.to_code(self.transform(x, sequence.segments))


def cut(picture: Float[AnyArray, "b rows cols 3"], rows: int, cols: int) -> Float[AnyArray, "b n p"]:
    """The ``rows x cols`` patches of pictures in raster order, each flattened as (channel, row, column)."""
    b, height, width, _ = picture.shape
    x = picture.reshape(b, rows, height // rows, cols, width // cols, 3).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(b, rows * cols, -1)


def patch_sequence(
    picture: Float[np.ndarray, "height width 3"], patch_size: int, length: int
) -> PatchSequence:
    """One picture as a sequence padded to ``length`` patches; made on the host.

    Raises:
      InputError: it has more patches.
    """
    rows, cols = (side // patch_size for side in picture.shape[:2])
    count = rows * cols
    if count > length:
        raise InputError(f"picture of {rows}x{cols} patches: at most {length} fit; use a smaller picture")
    cells = np.argwhere(np.ones((rows, cols), bool)).astype(np.int32)[None]
    tail = ((0, 0), (0, length - count), (0, 0))
    return PatchSequence(
        np.pad(cut(picture[None], rows, cols), tail),
        np.pad(cells, tail),
        (np.arange(length) < count).astype(np.int32)[None],
    )


def sincos_positions(rows: int, cols: int, width: int) -> Float[Array, "n d"]:
    """Fixed position table of a grid in raster order: the column in the first half of the width, the row in the second.

    Each half is ``[sin | cos]`` of the index times ``10000 ** (-i / (width / 4))``.
    """
    shape = (rows, cols, width // 2)
    column = jnp.broadcast_to(_waves(jnp.arange(cols), width)[None], shape)
    row = jnp.broadcast_to(_waves(jnp.arange(rows), width)[:, None], shape)
    return jnp.concatenate([column, row], axis=-1).reshape(rows * cols, width)


def sincos_at(cells: Int[Array, "b n 2"], width: int) -> Float[Array, "b n d"]:
    """The same for (row, column) cells of any grid."""
    return jnp.concatenate([_waves(cells[..., 1], width), _waves(cells[..., 0], width)], axis=-1)


def _waves(index: Int[Array, "..."], width: int) -> Float[Array, "... half"]:
    quarter = width // 4
    frequency = 10000.0 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    angle = index.astype(jnp.float32)[..., None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
