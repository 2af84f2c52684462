"""Vision tower of Qwen3-VL: its parameters.

A picture is cut into patches of ``channels x frames x rows x columns`` values, each embedded by one linear
map and given a learned position; pre-norm transformer layers follow; 2x2 neighbouring patches are merged into
one token of the decoder's width.  Chosen layers' outputs go through mergers of their own (DeepStack) and are
added in the decoder.
"""

from flax import nnx

from mammoth_jax.core.initializers import Normal
from mammoth_jax.core.parameters import param
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import MLP, gelu, gelu_tanh
from mammoth_jax.layers.norm import LayerNorm
from mammoth_jax.layers.stack import stack_layers
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig

EPS = 1e-6


class VisionAttention(nnx.Module):
    """Self-attention with one joint projection ``[d] -> [3, heads, e]`` and biases."""

    def __init__(self, hidden_size: int, num_heads: int):
        head_dim = hidden_size // num_heads
        self.qkv = Linear(
            hidden_size, (3, num_heads, head_dim), axes=("embed", (None, "heads", None)), bias=True
        )
        self.out = Linear((num_heads, head_dim), hidden_size, axes=(("heads", None), "embed"), bias=True)


class Qwen3VLVisionLayer(nnx.Module):
    """Pre-norm attention, then a pre-norm MLP."""

    def __init__(self, config: Qwen3VLVisionConfig):
        d = config.hidden_size
        self.norm1 = LayerNorm(d, eps=EPS)
        self.norm2 = LayerNorm(d, eps=EPS)
        self.attention = VisionAttention(d, config.num_heads)
        self.mlp = MLP(d, config.intermediate_size, d, activation=gelu_tanh)


class PatchMerger(nnx.Module):
    """Merges neighbouring patches into one token; the norm comes before or after merging (``norm_width``)."""

    def __init__(self, config: Qwen3VLVisionConfig, norm_width: int):
        self.norm = LayerNorm(norm_width, eps=EPS)
        self.mlp = MLP(config.merged_size, config.merged_size, config.out_hidden_size, activation=gelu)


class Qwen3VLVision(nnx.Module):
    """The tower; ``deepstack_mergers`` is a stack with one merger a tap (None without taps)."""

    def __init__(self, config: Qwen3VLVisionConfig):
        self.config = config
        d = config.hidden_size
        self.patch_embed = Linear(config.patch_values, d, axes=(None, "embed"), bias=True)
        self.pos_embed = param((config.num_position_embeddings, d), (None, "embed"), Normal(0.02))
        self.layers = stack_layers(lambda: Qwen3VLVisionLayer(config), config.num_layers)
        self.merger = PatchMerger(config, d)
        taps = len(config.deepstack_visual_indexes)
        self.deepstack_mergers = (
            stack_layers(lambda: PatchMerger(config, config.merged_size), taps) if taps else None
        )
