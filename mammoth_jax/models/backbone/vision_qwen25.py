"""Vision tower of Qwen2.5-VL.

Patches are embedded by one linear map without bias or learned position; pre-norm layers with RMS norms and
gated MLPs follow, most of them attending within windows; a merger makes one decoder token of 2x2 patches.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import MLP, SwiGLU, gelu
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.backbone.vision_attention import VisionAttention, rope_angles
from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_inputs import (
    Grids,
    Qwen25VLVisionInputs,
    VisionFeatures,
    qwen25_inputs,
)

EPS = 1e-6


class Qwen25VLVisionLayer(nnx.Module):
    """Pre-norm attention, then a pre-norm gated MLP with biases."""

    def __init__(self, config: Qwen25VLVisionConfig):
        d = config.hidden_size
        self.norm1 = RMSNorm(d, eps=EPS)
        self.norm2 = RMSNorm(d, eps=EPS)
        self.attention = VisionAttention(d, config.num_heads)
        self.mlp = SwiGLU(d, config.intermediate_size, bias=True)

    def __call__(
        self, x: Float[Array, "b n d"], angles: Float[Array, "b n half"], segments: Int[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        x = constrain(x + self.attention(self.norm1(x), angles, segments), "batch", "length", None)
        return constrain(x + self.mlp(self.norm2(x)), "batch", "length", None)


class Qwen25VLPatchMerger(nnx.Module):
    """A norm of each patch, then an MLP on the merged ones."""

    def __init__(self, config: Qwen25VLVisionConfig):
        self.merged_size = config.merged_size
        self.norm = RMSNorm(config.hidden_size, eps=EPS)
        self.mlp = MLP(config.merged_size, config.merged_size, config.out_hidden_size, activation=gelu)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b m d2"]:
        return self.mlp(self.norm(x).reshape(x.shape[0], -1, self.merged_size))


class Qwen25VLVision(nnx.Module):
    """The tower."""

    def __init__(self, config: Qwen25VLVisionConfig):
        self.config = config
        self.patch_embed = Linear(config.patch_values, config.hidden_size, axes=(None, "embed"))
        self.layers = stack_layers(lambda: Qwen25VLVisionLayer(config), config.num_layers)
        self.merger = Qwen25VLPatchMerger(config)

    def prepare(
        self, patches: Float[np.ndarray, "n p"], grids: Grids, lengths: Sequence[int] | None = None
    ) -> Qwen25VLVisionInputs:
        """This tower's inputs, made on the host; see :func:`qwen25_inputs`."""
        return qwen25_inputs(self.config, patches, grids, lengths)

    def __call__(self, inputs: Qwen25VLVisionInputs) -> VisionFeatures:
        """The tokens of each row's pictures in order, padding last; this tower has no tapped layers.

        One scan runs both kinds of layer: each chooses between the segments of windows and those of frames.
        """
        config = self.config
        h = self.patch_embed(inputs.patches.astype(self.patch_embed.kernel[...].dtype))
        h = constrain(h, "batch", "length", None)
        angles = rope_angles(inputs.rope_ids, config.head_dim)

        def body(h, layer: Qwen25VLVisionLayer, is_full):
            return layer(h, angles, jnp.where(is_full, inputs.frames, inputs.windows)), None

        full = np.isin(np.arange(config.num_layers), config.fullatt_block_indexes)
        h, _ = scan_layers(body, h, self.layers, jnp.asarray(full))
        tokens = jnp.take_along_axis(self.merger(h), inputs.restore[..., None], axis=1)
        return VisionFeatures(tokens, jnp.zeros((0, *tokens.shape), tokens.dtype))
