"""Vision tower of Qwen3-VL.

A picture is cut into patches of ``channels x frames x rows x columns`` values, each embedded by one linear
map and given a learned position; pre-norm transformer layers follow; 2x2 neighbouring patches are merged into
one token of the decoder's width.  Chosen layers' outputs go through mergers of their own (DeepStack) and are
added in the decoder.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.initializers import Normal
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import MLP, gelu, gelu_tanh
from mammoth_jax.layers.norm import LayerNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers
from mammoth_jax.models.backbone.vision_attention import VisionAttention, rope_angles
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.models.backbone.vision_inputs import (
    Grids,
    Qwen3VLVisionInputs,
    VisionFeatures,
    qwen3_inputs,
)

EPS = 1e-6


class Qwen3VLVisionLayer(nnx.Module):
    """Pre-norm attention, then a pre-norm MLP."""

    def __init__(self, config: Qwen3VLVisionConfig):
        d = config.hidden_size
        self.norm1 = LayerNorm(d, eps=EPS)
        self.norm2 = LayerNorm(d, eps=EPS)
        self.attention = VisionAttention(d, config.num_heads)
        self.mlp = MLP(d, config.intermediate_size, d, activation=gelu_tanh)

    def __call__(
        self, x: Float[Array, "b n d"], angles: Float[Array, "b n half"], segments: Int[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        x = constrain(x + self.attention(self.norm1(x), angles, segments), "batch", "length", None)
        return constrain(x + self.mlp(self.norm2(x)), "batch", "length", None)


class PatchMerger(nnx.Module):
    """Merges neighbouring patches into one token; the norm comes before or after merging (``norm_width``)."""

    def __init__(self, config: Qwen3VLVisionConfig, norm_width: int):
        self.norm_width = norm_width
        self.merged_size = config.merged_size
        self.norm = LayerNorm(norm_width, eps=EPS)
        self.mlp = MLP(config.merged_size, config.merged_size, config.out_hidden_size, activation=gelu)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b m d2"]:
        normed = self.norm(x.reshape(x.shape[0], -1, self.norm_width))
        return self.mlp(normed.reshape(x.shape[0], -1, self.merged_size))


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

    def prepare(
        self, patches: Float[np.ndarray, "n p"], grids: Grids, lengths: Sequence[int] | None = None
    ) -> Qwen3VLVisionInputs:
        """This tower's inputs, made on the host; see :func:`qwen3_inputs`."""
        return qwen3_inputs(self.config, patches, grids, lengths)

    def positions(self, inputs: Qwen3VLVisionInputs) -> Float[Array, "b n d"]:
        """The learned position of each patch, interpolated between the cells of the grid; float32."""
        around = jnp.take(self.pos_embed[...], inputs.cells, axis=0, mode="clip").astype(jnp.float32)
        return jnp.sum(around * inputs.cell_weights[..., None], axis=2)

    def __call__(self, inputs: Qwen3VLVisionInputs) -> VisionFeatures:
        """The tokens of each row's pictures in order, padding last, and the features of the tapped layers.

        The tapped outputs are written into a small buffer that the scan over the layers carries, so that neither
        the program grows with the depth nor the memory with the layers that are not tapped.
        """
        config = self.config
        taps = len(config.deepstack_visual_indexes)
        h = self.patch_embed(inputs.patches.astype(self.patch_embed.kernel[...].dtype))
        h = constrain(h + self.positions(inputs).astype(h.dtype), "batch", "length", None)
        angles = rope_angles(inputs.rope_ids, config.head_dim)

        def body(carry, layer: Qwen3VLVisionLayer, slot):
            h, tapped = carry
            h = layer(h, angles, inputs.frames)
            return (h, tapped.at[slot].set(h, mode="drop") if taps else tapped), None

        slots = np.full(config.num_layers, taps, np.int32)  # beyond the buffer: written nowhere
        slots[list(config.deepstack_visual_indexes)] = np.arange(taps)
        tapped = jnp.zeros((taps, *h.shape), h.dtype)
        (h, tapped), _ = scan_layers(body, (h, tapped), self.layers, jnp.asarray(slots))
        tokens = self.merger(h)
        if self.deepstack_mergers is None:
            return VisionFeatures(tokens, jnp.zeros((0, *tokens.shape), tokens.dtype))
        merged = jax.vmap(lambda merger, x: merger(x))(self.deepstack_mergers, tapped)
        return VisionFeatures(tokens, merged)
