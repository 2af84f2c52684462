"""The decoder: embeddings of both vocabularies, segments of scanned layers, two heads, whole sequences or one step."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.layers.embedding import Embedding
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.routing import Expert
from mammoth_jax.layers.stack import scan_layers, stack_layers, unstack_layers
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.cached_pass import cached_pass
from mammoth_jax.models.backbone.config import DecoderConfig, layer_plan
from mammoth_jax.models.backbone.layer import DecoderLayer, SequenceContext
from mammoth_jax.ops.mrope import mrope_tables

GENERATION_EXPERT = 1
Heads = Literal["all", "text", "generation"]


@dataclasses.dataclass(frozen=True)
class Taps:
    """Which hidden states are averaged into the condition features.

    ``layers`` index the list of ``num_layers + 1`` states: 0 is the embedding, ``i`` the output of layer ``i - 1``
    (after its DeepStack addition); negative indices count from the end.  With ``final_norm`` the last entry of the
    list is the final norm's output instead (the Qwen2.5-VL release).
    """

    layers: tuple[int, ...]
    final_norm: bool = False

    def weights(self, num_layers: int) -> list[float]:
        """The share of each of the ``num_layers + 1`` states."""
        shares = [0.0] * (num_layers + 1)
        for index in self.layers:
            shares[index] += 1 / len(self.layers)
        return shares


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderOutput:
    """Results of a pass over whole sequences; ``None`` where not asked for."""

    hidden: Float[Array, "b s d"]  # final-normed, what the heads read
    features: Float[Array, "b s d"] | None = None  # average over the tapped states, float32
    keys: Float[Array, "l b k s e"] | None = None  # head-major, as in a cache
    values: Float[Array, "l b k s e"] | None = None
    states: Float[Array, "l1 b s d"] | None = None  # all states; the last one is not normed


class Decoder(nnx.Module):
    """The text half of the backbone (paper section 2.1; experts section 2.3)."""

    def __init__(self, config: DecoderConfig, *, with_generation: bool = True):
        d = config.hidden_size
        generation = with_generation and config.gen_vocab_size > 0
        self.config = config
        self.embed = Embedding(config.vocab_size, d)
        self.gen_embed = Embedding(config.gen_vocab_size, d) if generation else None
        self.segments = nnx.List(
            [
                stack_layers(
                    lambda experts=segment.has_experts and with_generation: DecoderLayer(
                        config, has_experts=experts
                    ),
                    segment.num_layers,
                )
                for segment in layer_plan(config)
            ]
        )
        self.norm = RMSNorm(d, eps=config.rms_norm_eps)
        self.head = Linear(d, config.vocab_size, axes=("embed", "vocab"))
        self.gen_head = Linear(d, config.gen_vocab_size, axes=("embed", "vocab")) if generation else None

    def for_steps(self) -> "Decoder":
        """The same decoder as a loop of steps reads it fastest on the platform that is compiled for.

        On CPU a product cannot read its weights out of a stack: each step would copy every layer's.  There each layer
        gets weights of its own, copied once before the loop; elsewhere the stacks stay.
        """
        if target_platform() != "cpu":
            return self
        copy = jax.tree.map(lambda x: x, self)
        copy.segments = nnx.List([unstack_layers(stack) for stack in self.segments])
        return copy

    def is_generation(self, ids: Int[Array, "..."]) -> Bool[Array, "..."]:
        """True at generation tokens."""
        return (
            ids >= self.config.gen_vocab_start_index
            if self.gen_embed is not None
            else jnp.zeros_like(ids, bool)
        )

    def expert_of(self, ids: Int[Array, "..."]) -> Int[Array, "..."]:
        """The expert of each token: 1 for generation tokens, else 0."""
        return jnp.where(self.is_generation(ids), GENERATION_EXPERT, 0)

    def embed_ids(self, ids: Int[Array, "..."]) -> Float[Array, "... d"]:
        """Token embeddings from the two tables."""
        text = self.embed(jnp.where(self.is_generation(ids), 0, ids))
        if self.gen_embed is None:
            return text
        generation = self.gen_embed(ids - self.config.gen_vocab_start_index)
        return jnp.where(self.is_generation(ids)[..., None], generation, text)

    def logits(self, hidden: Float[Array, "... d"], heads: Heads = "all") -> Float[Array, "... v"]:
        """Float32 scores; for ``all`` the text columns come first and then the generation columns."""
        parts = []
        if heads != "generation":
            parts.append(self.head(hidden, out_dtype=jnp.float32))
        if heads != "text" and self.gen_head is not None:
            parts.append(self.gen_head(hidden, out_dtype=jnp.float32))
        return jnp.concatenate(parts, axis=-1)

    def __call__(
        self,
        ids: Int[Array, "b s"],
        positions: Int[Array, "3 b s"],
        *,
        segments: Int[Array, "b s"] | None = None,
        embeddings: Float[Array, "b s d"] | None = None,
        deepstack: Float[Array, "n b s d"] | None = None,
        taps: Taps | None = None,
        keep_cache: bool = False,
        keep_states: bool = False,
        gradients: bool = True,
    ) -> DecoderOutput:
        """Runs whole (packed or padded) sequences.

        Args:
          ids: token ids; they decide the experts even where ``embeddings`` are given.
          positions: rope positions on the three axes.
          segments: attention stays within equal numbers; 0 is padding.
          embeddings: replaces the lookup (vision features already in place).
          deepstack: features to add after the first ``n`` layers, zero where there is no picture.
          taps: which states to average into ``features``.
          keep_cache, keep_states: whether to return keys and values, or all states.
          gradients: whether the pass may be differentiated; if not, experts' weights are read where they lie.
        """
        config = self.config
        h = self.embed_ids(ids) if embeddings is None else embeddings
        h = constrain(h, "batch", "length", None)
        shares = jnp.asarray((taps or Taps(())).weights(config.num_layers), jnp.float32)
        context = self._context(positions, segments, self.expert_of(ids))
        first = h
        total = shares[0] * h.astype(jnp.float32) if taps else jnp.zeros((), jnp.float32)
        kept = []

        def body(carry, layer, item):
            h, total = carry
            share, added = item
            h, (key, value) = layer(h, context)
            cache = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
            h = h if added is None else h + added.astype(h.dtype)
            total = total + share * h.astype(jnp.float32) if taps else total
            return (h, total), (cache if keep_cache else None, h if keep_states else None)

        for segment, layers in zip(layer_plan(config), self.segments, strict=True):
            added = None
            if deepstack is not None and segment.has_deepstack:
                added = deepstack[segment.start : segment.stop]
            items = (self._layer_shares(shares, segment.start, segment.stop, taps), added)
            if not gradients and isinstance(layers, DecoderLayer):
                layers = layers.without_gradients()
            (h, total), ys = scan_layers(body, (h, total), layers, items)
            kept.append(ys)

        hidden = self.norm(h)
        if taps is not None and taps.final_norm:
            total = total + shares[-1] * hidden.astype(jnp.float32)
        caches = [c for c, _ in kept] if keep_cache else None
        return DecoderOutput(
            hidden,
            total if taps else None,
            jnp.concatenate([c[0] for c in caches]) if caches else None,
            jnp.concatenate([c[1] for c in caches]) if caches else None,
            jnp.concatenate([first[None], *[s for _, s in kept]]) if keep_states else None,
        )

    def step(
        self,
        ids: Int[Array, " b"],
        cache: KVCache,
        *,
        expert: Expert | None = None,
        write: Bool[Array, " b"] | None = None,
        taps: Taps | None = None,
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"] | None, KVCache]:
        """Feeds one token a row and returns (final-normed state, tapped features if asked for, cache grown by one).

        Args:
          expert: 0 or 1 where the whole batch is known to be text or generation tokens; by default from the ids.
          write: rows that are still running; the others keep their cache and length.
        """
        config = self.config
        write = jnp.ones(ids.shape, bool) if write is None else write
        positions = jnp.broadcast_to(cache.position[None, :, None], (3, ids.shape[0], 1))
        chosen = self.expert_of(ids)[:, None] if expert is None else expert
        context = self._context(positions, None, chosen)
        h = constrain(self.embed_ids(ids)[:, None], "batch", None, None)
        shares = None if taps is None else jnp.asarray(taps.weights(config.num_layers), jnp.float32)
        last = None if shares is None or taps is None or not taps.final_norm else shares[-1]
        h, total, (keys, values) = cached_pass(
            config,
            self.segments,
            h,
            context,
            cache,
            shares=shares if last is None or shares is None else shares.at[-1].set(0.0),
        )
        hidden = self.norm(h)
        if last is not None and total is not None:
            total = total + last * hidden.astype(jnp.float32)
        grown = cache.write(keys, values, write.astype(jnp.int32), cache.position + write)
        return hidden[:, 0], None if total is None else total[:, 0], grown

    def _context(
        self, positions: Int[Array, "3 b s"], segments: Int[Array, "b s"] | None, expert: Expert
    ) -> SequenceContext:
        c = self.config
        cos, sin = mrope_tables(positions, c.mrope_section, c.mrope_layout, c.rope_theta)
        return SequenceContext(cos, sin, segments, expert)

    def _layer_shares(
        self, shares: Float[Array, " l1"], start: int, stop: int, taps: Taps | None
    ) -> Float[Array, " layers"]:
        """Shares of the outputs of layers ``start <= i < stop``; the last one's is the final norm's, if so tapped."""
        if taps is not None and taps.final_norm:
            shares = shares.at[-1].set(0.0)
        return shares[start + 1 : stop + 1]
