"""Transformer blocks with sandwich norms, with and without modulation by time.

``x + norm2(attention(norm1(x)))`` and the same for the feed-forward layer; a modulated block scales the normed input by
``1 + scale`` and the branch by ``tanh(gate)``.  There is no shift.  Norms, modulation and gates are in float32.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import ZEROS, XavierUniform
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import scan_layers
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.positions import Rope
from mammoth_jax.models.dit.sample_time import SampleTime
from mammoth_jax.ops.attention import attention
from mammoth_jax.ops.rope import rotate_interleaved

QK_NORM_EPS = 1e-5


class Attention(nnx.Module):
    """Self-attention with grouped heads, query and key norms before the rotation, and no biases."""

    def __init__(self, config: DiTConfig):
        d, h, k = config.hidden_size, config.num_heads, config.num_kv_heads
        e = d // h
        init = XavierUniform()
        self.query = Linear(d, (h, e), axes=("embed", ("heads", None)), init=init)
        self.key = Linear(d, (k, e), axes=("embed", ("kv_heads", None)), init=init)
        self.value = Linear(d, (k, e), axes=("embed", ("kv_heads", None)), init=init)
        self.out = Linear((h, e), d, axes=(("heads", None), "embed"), init=init)
        self.query_norm = RMSNorm(e, eps=QK_NORM_EPS)
        self.key_norm = RMSNorm(e, eps=QK_NORM_EPS)

    def __call__(
        self, x: Float[Array, "b s d"], rope: Rope, segments: Int[Array, "b s"]
    ) -> Float[Array, "b s d"]:
        """Positions of segment 0 are padding: no keys, and their output is 0."""
        query = rotate_interleaved(self.query_norm(self.query(x)), *rope)
        key = rotate_interleaved(self.key_norm(self.key(x)), *rope)
        out = attention(query, key, self.value(x), query_segments=segments, key_segments=segments)
        return self.out(out)


class PlainBlock(nnx.Module):
    """A block that does not see time (the condition's refiner)."""

    def __init__(self, config: DiTConfig):
        d, eps = config.hidden_size, config.norm_eps
        self.attention = Attention(config)
        self.ffn = SwiGLU(d, config.ffn_width, init=XavierUniform())
        self.attention_norm = RMSNorm(d, eps=eps)
        self.attention_out_norm = RMSNorm(d, eps=eps)
        self.ffn_norm = RMSNorm(d, eps=eps)
        self.ffn_out_norm = RMSNorm(d, eps=eps)

    def __call__(
        self, x: Float[Array, "b s d"], rope: Rope, segments: Int[Array, "b s"], time: None = None
    ) -> Float[Array, "b s d"]:
        x = x + self.attention_out_norm(self.attention(self.attention_norm(x), rope, segments))
        x = x + self.ffn_out_norm(self.ffn(self.ffn_norm(x)))
        return constrain(x, "batch", "length", None)


class ModulatedBlock(nnx.Module):
    """A block whose branches are scaled and gated by time."""

    def __init__(self, config: DiTConfig):
        d, eps = config.hidden_size, config.norm_eps
        axes = ("embed", (None, "mlp"))
        self.modulation = Linear(config.time_width, (4, d), axes=axes, bias=True, init=ZEROS)
        self.attention = Attention(config)
        self.ffn = SwiGLU(d, config.ffn_width, init=XavierUniform())
        self.attention_norm = RMSNorm(d, eps=eps)
        self.attention_out_norm = RMSNorm(d, eps=eps)
        self.ffn_norm = RMSNorm(d, eps=eps)
        self.ffn_out_norm = RMSNorm(d, eps=eps)

    def __call__(
        self, x: Float[Array, "b s d"], rope: Rope, segments: Int[Array, "b s"], time: SampleTime
    ) -> Float[Array, "b s d"]:
        attention_scale, attention_gate, ffn_scale, ffn_gate = self._modulation(time)
        branch = self.attention(_scaled(self.attention_norm, x, attention_scale), rope, segments)
        x = x + _gated(self.attention_out_norm, branch, attention_gate)
        branch = self.ffn(_scaled(self.ffn_norm, x, ffn_scale))
        x = x + _gated(self.ffn_out_norm, branch, ffn_gate)
        return constrain(x, "batch", "length", None)

    def modulated_input(self, x: Float[Array, "b s d"], time: SampleTime) -> Float[Array, "b s d"]:
        """What the attention of this block reads."""
        return _scaled(self.attention_norm, x, self._modulation(time)[0])

    def _modulation(self, time: SampleTime) -> list[Float[Array, "b #s d"]]:
        """Scale and gate of the attention, then of the feed-forward layer; one for a row or for every token."""
        values = self.modulation(jax.nn.silu(time.embedding.astype(jnp.float32)))
        return [time.spread(values[:, :, i]) for i in range(4)]


def _scaled(norm: RMSNorm, x: Float[Array, "b s d"], scale: Float[Array, "b #s d"]) -> Float[Array, "b s d"]:
    return (norm(x.astype(jnp.float32)) * (1 + scale)).astype(x.dtype)


def _gated(norm: RMSNorm, x: Float[Array, "b s d"], gate: Float[Array, "b #s d"]) -> Float[Array, "b s d"]:
    return (jnp.tanh(gate) * norm(x.astype(jnp.float32))).astype(x.dtype)


Block = TypeVar("Block", PlainBlock, ModulatedBlock)


def run_blocks(
    blocks: Block,
    x: Float[Array, "b s d"],
    rope: Rope,
    segments: Int[Array, "b s"],
    time: SampleTime | None = None,
    *,
    collect: bool = False,
) -> tuple[Float[Array, "b s d"], Float[Array, "l b s d"] | None]:
    """Runs a stack; with ``collect`` also the output of every block, else ``None``."""

    def body(x: jax.Array, block: Block, _: None):
        y = block(x, rope, segments, time)  # type: ignore[arg-type]
        return y, (y if collect else None)

    return scan_layers(body, x, blocks)
