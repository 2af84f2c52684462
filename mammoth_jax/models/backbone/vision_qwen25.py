"""Vision tower of Qwen2.5-VL: its parameters.

Patches are embedded by one linear map without bias or learned position; pre-norm layers with RMS norms and
gated MLPs follow, most of them attending within windows; a merger makes one decoder token of 2x2 patches.
"""

from flax import nnx

from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import MLP, SwiGLU, gelu
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import stack_layers
from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_qwen3 import EPS, VisionAttention


class Qwen25VLVisionLayer(nnx.Module):
    """Pre-norm attention, then a pre-norm gated MLP with biases."""

    def __init__(self, config: Qwen25VLVisionConfig):
        d = config.hidden_size
        self.norm1 = RMSNorm(d, eps=EPS)
        self.norm2 = RMSNorm(d, eps=EPS)
        self.attention = VisionAttention(d, config.num_heads)
        self.mlp = SwiGLU(d, config.intermediate_size, bias=True)


class Qwen25VLPatchMerger(nnx.Module):
    """A norm of each patch, then an MLP on the merged ones."""

    def __init__(self, config: Qwen25VLVisionConfig):
        self.norm = RMSNorm(config.hidden_size, eps=EPS)
        self.mlp = MLP(config.merged_size, config.merged_size, config.out_hidden_size, activation=gelu)


class Qwen25VLVision(nnx.Module):
    """The tower."""

    def __init__(self, config: Qwen25VLVisionConfig):
        self.config = config
        self.patch_embed = Linear(config.patch_values, config.hidden_size, axes=(None, "embed"))
        self.layers = stack_layers(lambda: Qwen25VLVisionLayer(config), config.num_layers)
        self.merger = Qwen25VLPatchMerger(config)
