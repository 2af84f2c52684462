"""Codes to spatial features: a pre-norm transformer with two-dimensional rotary positions and a semantic head."""

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import FanInUniform
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import MLP, gelu
from mammoth_jax.layers.norm import LayerNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.mammothtok.config import ViTDecoderConfig
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.rope import rotate_interleaved

_EPS = 1e-5
Rotation = tuple[Float[Array, "n half"], Float[Array, "n half"]]


class DecoderBlock(nnx.Module):
    """Pre-norm self-attention with rotary positions, then an MLP with the exact GELU."""

    def __init__(self, config: ViTDecoderConfig):
        heads, width = (config.num_heads, config.width // config.num_heads), config.width

        def projection() -> Linear:
            return Linear(width, heads, axes=("embed", ("heads", None)), bias=True)

        self.norm1 = LayerNorm(width, eps=_EPS)
        self.query, self.key, self.value = projection(), projection(), projection()
        self.out = Linear(heads, width, axes=(("heads", None), "embed"), bias=True)
        self.norm2 = LayerNorm(width, eps=_EPS)
        self.mlp = MLP(width, config.mlp_ratio * width, width, activation=gelu)

    def __call__(self, x: Float[Array, "b n d"], rotation: Rotation) -> Float[Array, "b n d"]:
        h = self.norm1(x)
        cos, sin = (jnp.broadcast_to(table, (x.shape[0], *table.shape)) for table in rotation)
        query, key = rotate_interleaved(self.query(h), cos, sin), rotate_interleaved(self.key(h), cos, sin)
        x = x + self.out(attention(query, key, self.value(h)))
        x = x + self.mlp(self.norm2(x))
        return constrain(x, "batch", "length", None)


class SemanticHead(nnx.Module):
    """Three linear layers with SiLU between them; its output is matched to a frozen semantic encoder in training.

    Only the output's direction counts, and the gradient of a direction grows as the output shrinks: so the start keeps
    its size at any width.
    """

    def __init__(self, config: ViTDecoderConfig):
        hidden, start = config.mlp_ratio * config.width, FanInUniform()
        self.fc1 = Linear(config.width, hidden, axes=("embed", "mlp"), bias=True, init=start)
        self.fc2 = Linear(hidden, hidden, axes=("embed", "mlp"), bias=True, init=start)
        self.fc3 = Linear(hidden, config.semantic_width, axes=("mlp", "embed"), bias=True, init=start)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n e"]:
        return self.fc3(jax.nn.silu(self.fc2(jax.nn.silu(self.fc1(x)))))


class ViTDecoder(nnx.Module):
    """``lower`` holds the blocks under the semantic head, ``upper`` the rest (``None`` if there are none)."""

    def __init__(self, config: ViTDecoderConfig, z_channels: int):
        self.norm_in = LayerNorm(z_channels, eps=_EPS)
        self.embed_in = Linear(z_channels, config.width, axes=(None, "embed"), bias=True)

        def blocks(count: int) -> DecoderBlock:
            return stack_layers(lambda: DecoderBlock(config), count)

        above = config.num_layers - config.distill_depth
        self.head_width = config.width // config.num_heads
        self.lower = blocks(config.distill_depth)
        self.upper = blocks(above) if above else None
        self.semantic_head = SemanticHead(config)
        self.norm_out = LayerNorm(config.width, eps=_EPS)
        self.conv_out = Conv2d(config.width, z_channels, 3)

    def __call__(self, z: Float[Array, "b gr gc z"]) -> Float[Array, "b gr gc z"]:
        """Spatial features for the convolutional decoder."""
        return self.output(self.finish(self.start(z), z.shape[1:3]), z.shape[1:3])

    def semantic(self, z: Float[Array, "b gr gc z"]) -> Float[Array, "b n e"]:
        """The semantic head's features, tokens in raster order; runs only the lower blocks."""
        return self.semantic_head(self.start(z))

    def start(self, z: Float[Array, "b gr gc z"]) -> Float[Array, "b n d"]:
        """Tokens after the lower blocks, which both the rest of the decoder and the semantic head read."""
        return _run(self.lower, self.embed(z), self.rotation(z.shape[1:3]))

    def finish(self, x: Float[Array, "b n d"], grid: tuple[int, ...]) -> Float[Array, "b n d"]:
        """Tokens after the upper blocks."""
        return x if self.upper is None else _run(self.upper, x, self.rotation(grid))

    def output(self, x: Float[Array, "b n d"], grid: tuple[int, ...]) -> Float[Array, "b gr gc z"]:
        """The tokens after all blocks as spatial features."""
        return self.conv_out(self.norm_out(x).reshape(x.shape[0], *grid, x.shape[-1]))

    def embed(self, z: Float[Array, "b gr gc z"]) -> Float[Array, "b n d"]:
        """Tokens in raster order, before the first block."""
        return self.embed_in(self.norm_in(z.reshape(z.shape[0], -1, z.shape[-1])))

    def rotation(self, grid: tuple[int, ...]) -> Rotation:
        """Cosines and sines of the grid's positions."""
        rows, cols = grid
        return rotary_grid(rows, cols, self.head_width)


def _run(blocks: DecoderBlock, x: Float[Array, "b n d"], rotation: Rotation) -> Float[Array, "b n d"]:
    return scan_layers(lambda h, block, _: (block(h, rotation), None), x, blocks)[0]


def rotary_grid(rows: int, cols: int, head_width: int) -> Rotation:
    """Cosines and sines of a grid in raster order: the row turns the first half of the pairs, the column the second.

    Angles are the index times ``10000 ** (-i / (head_width / 4))``, ``i`` from 0 to ``head_width / 4 - 1``.
    """
    quarter = head_width // 4
    frequency = 10000.0 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    shape = (rows, cols, quarter)
    row = jnp.broadcast_to((jnp.arange(rows)[:, None] * frequency)[:, None], shape)
    col = jnp.broadcast_to((jnp.arange(cols)[:, None] * frequency)[None], shape)
    angle = jnp.concatenate([row, col], axis=-1).reshape(rows * cols, 2 * quarter)
    return jnp.cos(angle), jnp.sin(angle)
