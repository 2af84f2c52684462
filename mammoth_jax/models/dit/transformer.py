"""The diffusion transformer: velocity of noisy latent patches given a condition (paper section 2.4).

One sequence ``[condition ; references ; noisy target]`` a sample with full self-attention.  While sampling a row is one
sample: grids of one batch may differ, each row has its own (rows, columns), and its tokens past ``rows * columns`` are
padding that nothing attends to.  In training a row is packed with several samples, each with its own time.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import ZEROS, Normal, XavierUniform
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Bool, Float, Int, Shaped
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.stack import stack_layers
from mammoth_jax.models.dit.block import ModulatedBlock, PlainBlock, run_blocks
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.embeddings import CaptionEmbedding, TimeEmbedding
from mammoth_jax.models.dit.order import Order, Packed, SideBySide
from mammoth_jax.models.dit.packed import PackedPlaces, PackedReferences
from mammoth_jax.models.dit.positions import (
    condition_positions,
    picture_positions,
    reference_offsets,
    rope_factors,
)
from mammoth_jax.models.dit.sample_time import SampleTime
from mammoth_jax.ops.norm import layer_norm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """An encoded condition: what the transformer reads besides pictures and time.

    ``segments`` is the sample of each token, from 1 on (1 where a row is one sample), and 0 at padding; valid tokens
    need not be contiguous.  ``positions`` counts the tokens of a sample.
    """

    tokens: Float[Array, "b c d"]
    segments: Int[Array, "b c"]
    positions: Int[Array, "b c"]

    @property
    def mask(self) -> Bool[Array, "b c"]:
        """True at valid tokens."""
        return self.segments > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class References:
    """Latent patches of reference pictures and their (rows, columns); a reference of size (0, 0) is absent."""

    patches: Float[Array, "b r m p"]
    sizes: Int[Array, "b r 2"]


@dataclasses.dataclass(frozen=True)
class Joint:
    """The joint sequence of condition, references and target as it enters the blocks; ``order`` finds the target in it.

    ``segments`` is the sample of each token, 0 at padding.
    """

    tokens: Float[Array, "b s d"]
    segments: Int[Array, "b s"]
    positions: Shaped[Array, "b s 3"]
    time: SampleTime
    order: Order
    noise_blocks: Float[Array, "refiners b n d"] | None = None
    reference_blocks: Float[Array, "refiners br m d"] | None = None

    @property
    def mask(self) -> Bool[Array, "b s"]:
        """True at valid tokens."""
        return self.segments > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """What one evaluation went through; the joint sequence is ``[condition ; references ; target]``, padding included.

    Block outputs have a leading layer axis and are ``None`` unless asked for.
    """

    velocity: Float[Array, "b n out"]
    time: Float[Array, "b time"]
    positions: Shaped[Array, "b s 3"]
    mask: Bool[Array, "b s"]
    noise_blocks: Float[Array, "refiners b n d"] | None
    reference_blocks: Float[Array, "refiners br m d"] | None
    joint_blocks: Float[Array, "l b s d"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Stream:
    """Tokens of one kind on their way into the joint sequence; ``segments`` is their sample."""

    tokens: Float[Array, "b n d"]
    segments: Int[Array, "b n"]
    positions: Shaped[Array, "b n 3"]


class OutputLayer(nnx.Module):
    """Layer norm without weights, scaled by time, and the projection to patches."""

    def __init__(self, config: DiTConfig):
        d = config.hidden_size
        axes = ("embed", "mlp")
        self.modulation = Linear(config.time_width, d, axes=axes, bias=True, init=ZEROS)
        self.proj = Linear(d, config.out_patch_values, axes=axes, bias=True, init=ZEROS)

    def __call__(self, x: Float[Array, "b n d"], time: SampleTime) -> Float[Array, "b n p"]:
        scale = time.spread(self.modulation(jax.nn.silu(time.embedding)))
        y = layer_norm(x.astype(jnp.float32), None, None, 1e-6) * (1 + scale)
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
            joint.time.embedding[:, 0],
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
        """The joint sequence as it enters the blocks; a row is one sample."""
        given = time.astype(self.dtype) if faults.rounded_time else time
        own = SampleTime(time[:, None], self.time(given)[:, None])
        offset = jnp.sum(context.mask, axis=1)
        streams, reference_blocks = [], None
        if references is not None:
            offsets, offset = reference_offsets(offset, references.sizes)
            stream, reference_blocks = self._reference_rows(references, offsets, own, collect)
            streams.append(stream)
        where, valid = picture_positions(offset, sizes, x.shape[1])
        stream, noise_blocks = self._refine_target(x, where, valid.astype(jnp.int32), own, collect)
        joint = self._join(context, [*streams, stream], own, SideBySide(x.shape[1]))
        return dataclasses.replace(joint, noise_blocks=noise_blocks, reference_blocks=reference_blocks)

    def embed_packed(
        self,
        x: Float[Array, "b n p"],
        time: Float[Array, "b samples"],
        context: Context,
        places: PackedPlaces,
    ) -> Joint:
        """The joint sequences of rows that hold several samples each.

        Args:
          x: noisy latents of all samples of a row.
          time: of each sample.
          context: from ``encode_packed``.
          places: where the tokens of ``x`` and of the references belong.
        """
        times = SampleTime(time, self.time(time), places.target_sample)
        streams = []
        if places.references is not None:
            streams.append(self._refine_references(places.references, times)[0])
        stream, _ = self._refine_target(x, places.target_positions, places.target_sample, times, False)
        streams.append(stream)
        length = context.tokens.shape[1] + sum(each.tokens.shape[1] for each in streams)
        return self._join(context, streams, times, Packed(places.joint_index, length, x.shape[1]))

    def run(
        self, joint: Joint, *, collect: bool = False
    ) -> tuple[Float[Array, "b s d"], Float[Array, "l b s d"] | None]:
        """The blocks over the joint sequence."""
        rope = self._rope(joint.positions)
        return run_blocks(self.layers, joint.tokens, rope, joint.segments, joint.time, collect=collect)

    def read_out(self, joint: Joint, tokens: Float[Array, "b s d"]) -> Float[Array, "b n out"]:
        """The velocity from what the blocks made of the joint sequence."""
        time = joint.time.of(joint.order.target(joint.segments))
        return self.output(joint.order.target(tokens), time)

    def _rope(self, positions: Shaped[Array, "b s 3"]):
        return rope_factors(positions, self.config.axes_dim_rope)

    def _join(self, context: Context, streams: Sequence[_Stream], time: SampleTime, order: Order) -> Joint:
        """The joint sequence of the condition and the refined pictures."""
        index = jnp.where(context.mask, context.positions, 0)
        first = _Stream(context.tokens.astype(self.dtype), context.segments, condition_positions(index))
        parts = [first, *streams]
        tokens = order.join(*(part.tokens for part in parts))
        segments = order.join(*(part.segments for part in parts))
        kind = jnp.result_type(*(part.positions for part in parts))
        positions = order.join(*(part.positions.astype(kind) for part in parts))
        return Joint(
            constrain(tokens, "batch", "length", None), segments, positions, time.of(segments), order
        )

    def _refine_target(
        self,
        x: Float[Array, "b n p"],
        positions: Int[Array, "b n 3"],
        segments: Int[Array, "b n"],
        time: SampleTime,
        collect: bool,
    ) -> tuple[_Stream, Float[Array, "l b n d"] | None]:
        """Noisy latents, each sample for itself, with its time."""
        time = time.of(segments)
        where = self.config.first_axis.place(positions, time.spread(time.time))
        tokens = constrain(self.patch_embed(x.astype(self.dtype)), "batch", "length", None)
        rope = self._rope(where)
        tokens, blocks = run_blocks(self.noise_refiner, tokens, rope, segments, time, collect=collect)
        return _Stream(tokens, segments, where), blocks

    def _refine_references(
        self, references: PackedReferences, time: SampleTime, collect: bool = False
    ) -> tuple[_Stream, Float[Array, "l b n d"] | None]:
        """Each reference for itself, after its index embedding, with its sample's time."""
        time = time.of(references.sample)
        where = self.config.first_axis.place(references.positions, jnp.ones_like(time.spread(time.time)))
        numbers = jnp.arange(self.config.max_references)[:, None]
        is_number = references.number[..., None, None] == numbers
        # a sum over the few numbers: exact, and its gradient is a sum, where a lookup's would be a scatter
        index = jnp.sum(jnp.where(is_number, self.reference_index[...].astype(self.dtype), 0), axis=2)
        tokens = self.reference_embed(references.patches.astype(self.dtype)) + index
        tokens = constrain(tokens, "batch", "length", None)
        tokens, blocks = run_blocks(
            self.reference_refiner, tokens, self._rope(where), references.segments, time, collect=collect
        )
        return _Stream(tokens, references.sample, where), blocks

    def _reference_rows(
        self, references: References, offsets: Int[Array, "b r"], time: SampleTime, collect: bool
    ) -> tuple[_Stream, Float[Array, "l br m d"] | None]:
        """References of rows that are one sample each: every reference is refined as a row of its own."""
        b, r, m, _ = references.patches.shape
        if r > self.config.max_references:
            raise InputError(
                f"{r} reference pictures: the model has embeddings for {self.config.max_references}; give fewer"
            )
        where, valid = picture_positions(offsets, references.sizes, m)

        def flat(x: Array) -> Array:
            return x.reshape(b * r, *x.shape[2:])

        number = jnp.broadcast_to(jnp.arange(r)[None, :, None], (b, r, m))
        alone = valid.astype(jnp.int32)
        rows = PackedReferences(*map(flat, (references.patches, alone, number, alone, where)))
        stream, blocks = self._refine_references(
            rows, jax.tree.map(lambda x: jnp.repeat(x, r, axis=0), time), collect
        )
        return jax.tree.map(lambda x: x.reshape(b, r * m, *x.shape[2:]), stream), blocks
