"""The diffusion transformer: velocity of noisy latent patches given a condition (paper section 2.4).

One sequence ``[condition ; references ; noisy target]`` with full self-attention.  Grids of one batch may differ: each
row has its own (rows, columns), and its tokens past ``rows * columns`` are padding that nothing attends to.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import ZEROS, Normal, XavierUniform
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.stack import stack_layers
from mammoth_jax.models.dit.block import ModulatedBlock, PlainBlock, run_blocks
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.embeddings import CaptionEmbedding, TimeEmbedding
from mammoth_jax.models.dit.positions import (
    condition_positions,
    picture_positions,
    reference_offsets,
    rope_factors,
)
from mammoth_jax.ops.norm import layer_norm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """An encoded condition: what the transformer reads besides pictures and time.

    ``mask`` is true at valid tokens, which need not be contiguous; ``positions`` counts the valid tokens.
    """

    tokens: Float[Array, "b c d"]
    mask: Bool[Array, "b c"]
    positions: Int[Array, "b c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class References:
    """Latent patches of reference pictures and their (rows, columns); a reference of size (0, 0) is absent."""

    patches: Float[Array, "b r m p"]
    sizes: Int[Array, "b r 2"]


@dataclasses.dataclass(frozen=True)
class Joint:
    """The sequence ``[condition ; references ; target]`` as it enters the blocks.

    The target is its last ``num_tokens``.
    """

    tokens: Float[Array, "b s d"]
    mask: Bool[Array, "b s"]
    positions: Int[Array, "b s 3"]
    time: Float[Array, "b time"]
    num_tokens: int
    noise_blocks: Float[Array, "refiners b n d"] | None = None
    reference_blocks: Float[Array, "refiners br m d"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """What one evaluation went through; the joint sequence is ``[condition ; references ; target]``, padding included.

    Block outputs have a leading layer axis and are ``None`` unless asked for.
    """

    velocity: Float[Array, "b n out"]
    time: Float[Array, "b time"]
    positions: Int[Array, "b s 3"]
    mask: Bool[Array, "b s"]
    noise_blocks: Float[Array, "refiners b n d"] | None
    reference_blocks: Float[Array, "refiners br m d"] | None
    joint_blocks: Float[Array, "l b s d"] | None


class OutputLayer(nnx.Module):
    """Layer norm without weights, scaled by time, and the projection to patches."""

    def __init__(self, config: DiTConfig):
        d = config.hidden_size
        axes = ("embed", "mlp")
        self.modulation = Linear(config.time_width, d, axes=axes, bias=True, init=ZEROS)
        self.proj = Linear(d, config.out_patch_values, axes=axes, bias=True, init=ZEROS)

    def __call__(self, x: Float[Array, "b n d"], time: Float[Array, "b time"]) -> Float[Array, "b n p"]:
        scale = self.modulation(jax.nn.silu(time))
        y = layer_norm(x.astype(jnp.float32), None, None, 1e-6) * (1 + scale)[:, None]
        return self.proj(y.astype(x.dtype), out_dtype=jnp.dtype(jnp.float32))


class DiT(nnx.Module):
    """The transformer with its patch, time and caption embedders and its three refiners."""

    def __init__(self, config: DiTConfig):
        self.config = config
        d, p = config.hidden_size, config.patch_values
        xavier = XavierUniform()
        axes = ("embed", "mlp")
        self.patch_embed = Linear(p, d, axes=axes, bias=True, init=xavier)
        self.reference_embed = Linear(p, d, axes=axes, bias=True, init=xavier)
        self.reference_index = param((config.max_references, d), (None, "embed"), Normal(0.02))
        self.time = TimeEmbedding(config.time_width, config.timestep_scale)
        self.caption = CaptionEmbedding(config.condition_width, d)
        refiners = config.num_refiner_layers
        self.noise_refiner = stack_layers(lambda: ModulatedBlock(config), refiners)
        self.reference_refiner = stack_layers(lambda: ModulatedBlock(config), refiners)
        self.context_refiner = stack_layers(lambda: PlainBlock(config), refiners)
        self.layers = stack_layers(lambda: ModulatedBlock(config), config.num_layers)
        self.output = OutputLayer(config)

    @property
    def dtype(self) -> jnp.dtype:
        """The number format of the weights, in which the blocks run."""
        return self.patch_embed.kernel.dtype

    def __call__(
        self,
        x: Float[Array, "b n p"],
        time: Float[Array, " b"],
        context: Context,
        sizes: Int[Array, "b 2"],
        references: References | None = None,
        *,
        faults: ReleaseFaults = NO_FAULTS,
    ) -> Float[Array, "b n out"]:
        """Velocity (data minus noise) in float32.

        Args:
          x: noisy latents as patch tokens.
          time: 0 (noise) to 1 (data), one a row.
          context: from ``encode_condition``.
          sizes: rows and columns of tokens of each picture.
          references: pictures to condition on, if any.

        Raises:
          InputError: more references than there are index embeddings.
        """
        return self.trace(x, time, context, sizes, references, faults=faults, collect=False).velocity

    def trace(
        self,
        x: Float[Array, "b n p"],
        time: Float[Array, " b"],
        context: Context,
        sizes: Int[Array, "b 2"],
        references: References | None = None,
        *,
        faults: ReleaseFaults = NO_FAULTS,
        collect: bool = True,
    ) -> Trace:
        """As calling the model, with what happens on the way; ``collect`` keeps the blocks' outputs."""
        joint = self.embed(x, time, context, sizes, references, faults=faults, collect=collect)
        tokens, joint_blocks = self.run(joint, collect=collect)
        velocity = self.read_out(joint, tokens)
        return Trace(
            velocity,
            joint.time,
            joint.positions,
            joint.mask,
            joint.noise_blocks,
            joint.reference_blocks,
            joint_blocks,
        )

    def embed(
        self,
        x: Float[Array, "b n p"],
        time: Float[Array, " b"],
        context: Context,
        sizes: Int[Array, "b 2"],
        references: References | None = None,
        *,
        faults: ReleaseFaults = NO_FAULTS,
        collect: bool = False,
    ) -> Joint:
        """The joint sequence as it enters the blocks."""
        num_tokens = x.shape[1]
        embedding = self.time(time.astype(self.dtype) if faults.rounded_time else time)
        offset = jnp.sum(context.mask, axis=1)

        tokens = [context.tokens.astype(self.dtype)]
        masks = [context.mask]
        positions = [condition_positions(jnp.where(context.mask, context.positions, 0))]
        reference_blocks = None
        if references is not None:
            offsets, offset = reference_offsets(offset, references.sizes)
            where, valid = picture_positions(offsets, references.sizes, references.patches.shape[2])
            refined, reference_blocks = self._refine_references(references, where, valid, embedding, collect)
            tokens.append(refined)
            masks.append(valid.reshape(valid.shape[0], -1))
            positions.append(where.reshape(where.shape[0], -1, 3))
        where, valid = picture_positions(offset, sizes, num_tokens)
        noise = constrain(self.patch_embed(x.astype(self.dtype)), "batch", "length", None)
        noise, noise_blocks = run_blocks(
            self.noise_refiner, noise, self._rope(where), valid.astype(jnp.int32), embedding, collect=collect
        )
        return Joint(
            constrain(jnp.concatenate([*tokens, noise], axis=1), "batch", "length", None),
            jnp.concatenate([*masks, valid], axis=1),
            jnp.concatenate([*positions, where], axis=1),
            embedding,
            num_tokens,
            noise_blocks,
            reference_blocks,
        )

    def run(
        self, joint: Joint, *, collect: bool = False
    ) -> tuple[Float[Array, "b s d"], Float[Array, "l b s d"] | None]:
        """The blocks over the joint sequence."""
        rope, segments = self._rope(joint.positions), joint.mask.astype(jnp.int32)
        return run_blocks(self.layers, joint.tokens, rope, segments, joint.time, collect=collect)

    def read_out(self, joint: Joint, tokens: Float[Array, "b s d"]) -> Float[Array, "b n out"]:
        """The velocity from what the blocks made of the joint sequence."""
        return self.output(tokens[:, -joint.num_tokens :], joint.time)

    def _rope(self, positions: Int[Array, "b s 3"]):
        return rope_factors(positions, self.config.axes_dim_rope)

    def _refine_references(
        self,
        references: References,
        positions: Int[Array, "b r m 3"],
        valid: Bool[Array, "b r m"],
        time: Float[Array, "b time"],
        collect: bool,
    ) -> tuple[Float[Array, "b rm d"], Float[Array, "l br m d"] | None]:
        """Each reference alone, after its index embedding, with its row's time."""
        b, r, m, _ = references.patches.shape
        if r > self.config.max_references:
            raise InputError(
                f"{r} reference pictures: the model has embeddings for {self.config.max_references}; give fewer"
            )
        x = self.reference_embed(references.patches.astype(self.dtype))
        x = x + self.reference_index[...][:r, None].astype(self.dtype)
        rope = self._rope(positions.reshape(b * r, m, 3))
        segments = valid.reshape(b * r, m).astype(jnp.int32)
        x, blocks = run_blocks(
            self.reference_refiner,
            x.reshape(b * r, m, -1),
            rope,
            segments,
            jnp.repeat(time, r, axis=0),
            collect=collect,
        )
        return x.reshape(b, r * m, -1), blocks
