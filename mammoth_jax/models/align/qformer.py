"""The alignment module's Q-Former (paper section 2.3): features of generated visual tokens to a fixed number of tokens.

Per layer, pre-norm: self-attention among the queries, cross-attention from the queries to the projected features, and
a gated feed-forward layer.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import FanInUniform, Normal, XavierUniform
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.ops.attention import attention


class PackedAttention(nnx.Module):
    """Multi-head attention with biases whose query, key and value projections are one array ``[d, 3, heads, e]``."""

    def __init__(self, width: int, heads: int):
        e = width // heads
        axes = ("embed", (None, "heads", None))
        self.packed = Linear(width, (3, heads, e), axes=axes, bias=True, init=XavierUniform())
        self.out = Linear((heads, e), width, axes=(("heads", None), "embed"), bias=True, init=FanInUniform())

    def _project(self, x: Float[Array, "b s d"], first: int, last: int) -> Float[Array, "b s n h e"]:
        kernel, bias = self.packed.kernel[...][:, first:last], self.packed.bias[...][first:last]  # type: ignore[index]
        return self.packed.product(x, kernel) + bias.astype(x.dtype)

    def __call__(
        self,
        x: Float[Array, "b s d"],
        source: Float[Array, "b t d"],
        owner: Int[Array, "b s"],
        source_owner: Int[Array, "b t"],
    ) -> Float[Array, "b s d"]:
        """Every position of ``x`` attends to the positions of ``source`` that have its owner; 0 owns nothing."""
        query = self._project(x, 0, 1)[:, :, 0]
        key_value = self._project(source, 1, 3)
        out = attention(
            query,
            key_value[:, :, 0],
            key_value[:, :, 1],
            query_segments=owner,
            key_segments=source_owner,
        )
        return self.out(out)


class QFormerLayer(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each after its norm and added to the queries."""

    def __init__(self, config: QFormerConfig):
        d, eps = config.width, config.norm_eps
        self.self_norm = RMSNorm(d, eps=eps)
        self.self_attention = PackedAttention(d, config.heads)
        self.cross_norm = RMSNorm(d, eps=eps)
        self.cross_attention = PackedAttention(d, config.heads)
        self.ffn_norm = RMSNorm(d, eps=eps)
        self.ffn = SwiGLU(d, config.ffn_width, init=FanInUniform())

    def __call__(
        self,
        x: Float[Array, "b q d"],
        source: Float[Array, "b t d"],
        owner: Int[Array, "b q"],
        source_owner: Int[Array, "b t"],
    ) -> Float[Array, "b q d"]:
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed, owner, owner)
        x = x + self.cross_attention(self.cross_norm(x), source, owner, source_owner)
        return constrain(x + self.ffn(self.ffn_norm(x)), "batch", "length", None)


class QFormer(nnx.Module):
    """Maps ``[b, t, input_width]`` to ``num_queries`` tokens for each sample of a row."""

    def __init__(self, config: QFormerConfig):
        self.config = config
        d = config.width
        self.input_norm = RMSNorm(config.input_width, eps=config.norm_eps)
        axes = ("embed", "mlp")
        self.input = Linear(config.input_width, d, axes=axes, bias=True, init=FanInUniform())
        self.query = param((config.num_queries, d), (None, "embed"), Normal(d**-0.5))
        self.layers = stack_layers(lambda: QFormerLayer(config), config.num_layers)

    def embed(self, features: Float[Array, "b t d"]) -> Float[Array, "b t width"]:
        """The projected features that the queries read."""
        return self.input(self.input_norm(features))

    def __call__(
        self,
        features: Float[Array, "b t d"],
        owner: Int[Array, "b t"] | Bool[Array, "b t"],
        num_samples: int = 1,
    ) -> Float[Array, "b q width"]:
        """The queries of sample 1, then those of sample 2 and so on, each reading its own sample's features.

        Args:
          features: what is read.
          owner: the sample of each feature, from 1 on (a mask, where a row is one sample); those of 0 do not matter.
          num_samples: samples of a row at most; queries of one without features hold nothing of use.
        """
        source = self.embed(features.astype(self.query.dtype))
        rows, each = features.shape[0], self.config.num_queries
        x = jnp.tile(self.query[...].astype(source.dtype), (num_samples, 1))
        x = jnp.broadcast_to(x, (rows, *x.shape))
        own = jnp.broadcast_to(jnp.repeat(jnp.arange(1, num_samples + 1), each), x.shape[:2])

        def body(x: jax.Array, layer: QFormerLayer, _: None):
            return layer(x, source, own, owner.astype(jnp.int32)), None

        return scan_layers(body, x, self.layers)[0]
