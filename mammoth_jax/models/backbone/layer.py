"""One decoder layer: attention and feed-forward, each with experts where the layer has them."""

import dataclasses

import jax
from flax import nnx

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.routing import Expert, route, route_ffn
from mammoth_jax.layers.stack import InStack
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.rope import rotate_half

KeyValue = tuple[Float[Array, "b s k e"], Float[Array, "b s k e"]]


@dataclasses.dataclass(frozen=True)
class SequenceContext:
    """What all layers of one pass share: rope tables, segments (0 is padding) and the tokens' experts."""

    cos: Float[Array, "b s half"]
    sin: Float[Array, "b s half"]
    segments: Int[Array, "b s"] | None
    expert: Expert


class Projections(nnx.Module):
    """Query, key, value and output maps of one attention expert.

    Heads come out side by side: compilers would lay out kernels ``[d, heads, e]`` anew for products of few rows.
    """

    def __init__(self, config: DecoderConfig, *, bias: bool, output_bias: bool):
        d, e = config.hidden_size, config.head_dim
        self.query = Linear(d, config.num_heads * e, axes=("embed", "heads"), bias=bias)
        self.key = Linear(d, config.num_kv_heads * e, axes=("embed", "kv_heads"), bias=bias)
        self.value = Linear(d, config.num_kv_heads * e, axes=("embed", "kv_heads"), bias=bias)
        self.out = Linear((config.num_heads, e), d, axes=(("heads", None), "embed"), bias=output_bias)


class DecoderAttention(nnx.Module):
    """Grouped-query attention; with attention experts a token's own id picks its maps, all share one attention."""

    def __init__(self, config: DecoderConfig, *, num_experts: int):
        self.causal = config.causal
        self.head_dim = config.head_dim
        self.experts = nnx.List(
            [
                Projections(config, bias=config.qkv_bias, output_bias=config.output_bias)
                for _ in range(num_experts)
            ]
        )
        norm = config.qk_norm
        self.query_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps) if norm else None
        self.key_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps) if norm else None

    def heads(
        self, x: Float[Array, "b s d"], context: SequenceContext
    ) -> tuple[Float[Array, "b s h e"], Float[Array, "b s k e"], Float[Array, "b s k e"]]:
        """Queries and keys, normed and rotated, and values."""
        expert = context.expert if len(self.experts) > 1 else 0
        query = route([p.query for p in self.experts], x, expert)
        key = route([p.key for p in self.experts], x, expert)
        value = route([p.value for p in self.experts], x, expert)
        # without the barrier XLA turns a product and its reshape into a product with a kernel laid out anew
        query, key, value = (
            y.reshape(*x.shape[:-1], -1, self.head_dim)
            for y in jax.lax.optimization_barrier((query, key, value))
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return rotate_half(query, context.cos, context.sin), rotate_half(key, context.cos, context.sin), value

    def project(self, y: Float[Array, "b s h e"], context: SequenceContext) -> Float[Array, "b s d"]:
        """The output map."""
        return route([p.out for p in self.experts], y, context.expert if len(self.experts) > 1 else 0)


class DecoderLayer(nnx.Module):
    """``x + attention(norm(x))``, then ``x + ffn(norm(x))``."""

    def __init__(self, config: DecoderConfig, *, has_experts: bool):
        attention_experts = 2 if has_experts and config.experts.kind == "ffn_attention" else 1
        ffn_experts = config.num_ffn_experts if has_experts else 1
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attention = DecoderAttention(config, num_experts=attention_experts)
        self.ffn_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.ffn = nnx.List(
            [SwiGLU(config.hidden_size, config.intermediate_size) for _ in range(ffn_experts)]
        )

    def __call__(
        self, x: Float[Array, "b s d"], context: SequenceContext
    ) -> tuple[Float[Array, "b s d"], KeyValue]:
        """Runs whole sequences; also returns the keys and values, for a cache."""
        query, key, value = self.attention.heads(self.attention_norm(x), context)
        mixed = attention(
            query,
            key,
            value,
            query_segments=context.segments,
            key_segments=context.segments,
            causal=self.attention.causal,
        )
        x = constrain(x + self.attention.project(mixed, context), "batch", "length", None)
        return self.feed_forward(x, context), (key, value)

    def feed_forward(self, x: Float[Array, "b s d"], context: SequenceContext) -> Float[Array, "b s d"]:
        """The second half of the layer."""
        y = route_ffn(list(self.ffn), self.ffn_norm(x), context.expert if len(self.ffn) > 1 else 0)
        return constrain(x + y, "batch", "length", None)

    def without_gradients(self) -> "DecoderLayer":
        """The stack of layers as passes that are not differentiated read it: feed-forward experts stay in the stack.

        ``ops/routed_ffn`` may then read them there, where a scan over slices hands a custom call copies.  Rounded
        experts are read as slices.
        """
        if len(self.ffn) == 1 or any(not isinstance(e.gate, Linear) for e in self.ffn):
            return self
        layers = jax.tree.map(lambda x: x, self)
        layers.ffn = nnx.List([InStack(e) for e in layers.ffn])
        return layers

    def for_expert(self, expert: Expert) -> "DecoderLayer":
        """The layer, or stack of layers, with a known expert alone; as it is where ``expert`` is an array.

        A scan takes in all arrays of what it runs over, so without this a loop of generation tokens would hold the text
        expert too.
        """
        if not isinstance(expert, int):
            return self
        layer = jax.tree.map(lambda x: x, self)
        for part, name in ((layer, "ffn"), (layer.attention, "experts")):
            experts = getattr(part, name)
            if len(experts) > 1:
                setattr(part, name, nnx.List([experts[expert]]))
        return layer
