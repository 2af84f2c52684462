"""Text decoding: prompts with pictures are read, then answers are written token by token on the device.

A row is one conversation.  Rows differ in prompt, seed, settings and budget, and depend on nothing but their own.  All
tokens of an answer but a stop token are fed back, so that a later turn goes on from the cache
(:func:`read_more`) with nothing but its new tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.rng import named_key
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.models.backbone.cache import CacheFormat, KVCache
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.extend import extend, last_states
from mammoth_jax.models.backbone.multimodal import place_features
from mammoth_jax.models.backbone.vision_inputs import VisionFeatures
from mammoth_jax.sampling.logits import SamplingSettings, choose, process

TEXT_EXPERT = 0
NO_TOKEN = -1


@dataclasses.dataclass(frozen=True)
class TextPlan:
    """What a program is compiled for besides shapes.

    Attributes:
        stop_ids: ids that end an answer.
        forbidden_ids: ids that are never written.
        generation_ids: generation tokens that may be written beside the text tokens.
    """

    stop_ids: tuple[int, ...]
    forbidden_ids: tuple[int, ...] = ()
    generation_ids: tuple[int, ...] = ()

    @property
    def text_only(self) -> bool:
        """Whether all tokens that are fed back are text."""
        return set(self.generation_ids) <= set(self.stop_ids)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextInputs:
    """New tokens of each row, right-padded, and the pictures among them."""

    ids: Int[Array, "b s"]
    lengths: Int[Array, " b"]
    positions: Int[Array, "3 b s"]
    features: VisionFeatures | None = None
    slots: Int[Array, "b s"] | None = None  # feature of each placeholder (models/backbone/multimodal.py)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextRequests:
    """What each row asks for: seed, most tokens of its answer (0 for an empty row), sampling settings."""

    seed: Int[Array, " b"]
    max_tokens: Int[Array, " b"]
    settings: SamplingSettings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReadPrompts:
    """Rows that have been read: their cache, the state that the heads score next, and which ids have occurred."""

    cache: KVCache
    hidden: Float[Array, "b d"]
    seen: Bool[Array, "b i"]  # over all ids, text and generation; what the repetition penalty counts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextState:
    """Everything that writing carries from step to step."""

    cache: KVCache
    hidden: Float[Array, "b d"]  # of the last token, final-normed
    seen: Bool[Array, "b i"]
    requests: TextRequests
    tokens: Int[Array, "b n"]  # ids so far, a stop token at the end included
    count: Int[Array, " b"]  # how many
    finished: Bool[Array, " b"]  # rows that wrote a stop token

    @property
    def active(self) -> Bool[Array, " b"]:
        """Rows that go on."""
        return ~self.finished & (self.count < self.requests.max_tokens)


def read(
    decoder: Decoder, inputs: TextInputs, capacity: int, cache_format: CacheFormat = "model"
) -> ReadPrompts:
    """Reads whole prompts in one pass into a new cache of ``capacity`` slots a row."""
    embeddings, deepstack = _placed(decoder, inputs)
    valid = jnp.arange(inputs.ids.shape[1])[None] < inputs.lengths[:, None]
    out = decoder(
        inputs.ids,
        inputs.positions,
        segments=valid.astype(jnp.int32),
        embeddings=embeddings,
        deepstack=deepstack,
        keep_cache=True,
        gradients=False,
    )
    assert out.keys is not None and out.values is not None
    following = jnp.max(jnp.where(valid[None], inputs.positions, -1), axis=(0, 2)) + 1
    cache = KVCache(out.keys, out.values, jnp.zeros_like(inputs.lengths), inputs.lengths, following)
    cache = grow(cache, capacity, cache_format)
    seen = _mark(jnp.zeros((len(inputs.ids), num_ids(decoder.config)), bool), inputs)
    return ReadPrompts(cache, last_states(out.hidden, inputs.lengths), seen)


def read_more(decoder: Decoder, before: ReadPrompts, inputs: TextInputs) -> ReadPrompts:
    """Reads further tokens of rows whose beginning is cached; they must fit the cache."""
    embeddings, deepstack = _placed(decoder, inputs)
    hidden, cache = extend(
        decoder,
        inputs.ids,
        inputs.lengths,
        inputs.positions,
        before.cache,
        embeddings=embeddings,
        deepstack=deepstack,
    )
    last = last_states(hidden, inputs.lengths)
    kept = jnp.where((inputs.lengths > 0)[:, None], last, before.hidden)
    return ReadPrompts(cache, kept, _mark(before.seen, inputs))


def grow(cache: KVCache, capacity: int, cache_format: CacheFormat = "model") -> KVCache:
    """The cache with ``capacity`` slots a row, at least as many as before; one that is int8 stays so."""
    return cache.in_format(cache_format).take(jnp.arange(cache.length.shape[0]), capacity)


def start(prompts: ReadPrompts, requests: TextRequests, max_tokens: int) -> TextState:
    """The state before the first token; ``max_tokens`` is the most that any row may ask for."""
    b = prompts.hidden.shape[0]
    return TextState(
        cache=prompts.cache,
        hidden=prompts.hidden,
        seen=prompts.seen,
        requests=requests,
        tokens=jnp.full((b, max_tokens), NO_TOKEN, jnp.int32),
        count=jnp.zeros((b,), jnp.int32),
        finished=jnp.zeros((b,), bool),
    )


def step(decoder: Decoder, state: TextState, plan: TextPlan) -> tuple[TextState, Int[Array, " b"]]:
    """Draws the next token of every active row and feeds it unless it is a stop token.

    Also returns the drawn ids, :data:`NO_TOKEN` in rows that were done: the one small array that streaming reads.
    """
    active = state.active
    ids = _next_ids(decoder, state, plan)
    stops = jnp.isin(ids, jnp.asarray(plan.stop_ids, jnp.int32))
    feeds = active & ~stops
    expert = TEXT_EXPERT if plan.text_only else None
    hidden, _, cache = decoder.step(ids, state.cache, expert=expert, write=feeds)
    rows = jnp.arange(len(ids))
    slot = jnp.where(active, state.count, state.tokens.shape[1])
    following = TextState(
        cache=cache,
        hidden=jnp.where(feeds[:, None], hidden, state.hidden),
        seen=state.seen.at[rows, ids].max(feeds),
        requests=state.requests,
        tokens=state.tokens.at[rows, slot].set(ids, mode="drop"),
        count=state.count + active,
        finished=state.finished | (active & stops),
    )
    return following, jnp.where(active, ids, NO_TOKEN)


def write_chunk(
    decoder: Decoder, state: TextState, num_steps: Int[Array, ""] | int, plan: TextPlan
) -> TextState:
    """At most ``num_steps`` steps (a value, not a shape), fewer when all rows finish: one launch."""

    def unfinished(carry):
        done, state = carry
        return (done < num_steps) & jnp.any(state.active)

    def advance(carry):
        done, state = carry
        return done + 1, step(decoder, state, plan)[0]

    decoder = decoder.for_steps()
    return jax.lax.while_loop(unfinished, advance, (jnp.asarray(0, jnp.int32), state))[1]


def write_answers(
    decoder: Decoder, prompts: ReadPrompts, requests: TextRequests, max_tokens: int, plan: TextPlan
) -> TextState:
    """Whole answers of all rows."""
    return write_chunk(decoder, start(prompts, requests, max_tokens), max_tokens, plan)


def scores(decoder: Decoder, hidden: Float[Array, "b d"], plan: TextPlan) -> Float[Array, "b c"]:
    """Raw scores of what may come next, float32: the text ids in order, then the plan's generation ids.

    Of the generation head nothing but those columns is evaluated.

    Raises:
      InputError: a generation id that the model does not have.
    """
    text = decoder.logits(hidden, "text")
    if not plan.generation_ids:
        return text
    first, count = decoder.config.gen_vocab_start_index, decoder.config.gen_vocab_size
    bad = [i for i in plan.generation_ids if not first <= i < first + count]
    if bad or decoder.gen_head is None:
        raise InputError(
            f"generation ids {bad or plan.generation_ids}: this model has {count} from {first} on"
        )
    kernel = jnp.take(decoder.gen_head.kernel[...], np.asarray(plan.generation_ids) - first, axis=1)
    columns = jnp.dot(hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return jnp.concatenate([text, columns], axis=-1)


def num_ids(config: DecoderConfig) -> int:
    """Ids of both vocabularies: the width of a mask of ids that have occurred."""
    return max(config.vocab_size, config.gen_vocab_start_index + config.gen_vocab_size)


def _next_ids(decoder: Decoder, state: TextState, plan: TextPlan) -> Int[Array, " b"]:
    settings, extra = state.requests.settings, jnp.asarray(plan.generation_ids, jnp.int32)
    raw = scores(decoder, state.hidden, plan)
    num_text = raw.shape[1] - len(extra)
    ids = jnp.concatenate([jnp.arange(num_text, dtype=jnp.int32), extra])
    seen = jnp.concatenate([state.seen[:, :num_text], state.seen[:, extra]], axis=1)
    allowed = ~jnp.isin(ids, jnp.asarray(plan.forbidden_ids, jnp.int32))
    processed = process(raw, settings, seen, allowed, min_tokens=1)
    keys = jax.vmap(lambda seed, at: named_key(jax.random.key(seed), "text token", at))(
        state.requests.seed, state.count
    )
    return ids[choose(processed, settings.temperature, keys)]


def _mark(seen: Bool[Array, "b i"], inputs: TextInputs) -> Bool[Array, "b i"]:
    """With the ids of the inputs, vision placeholders included, as transformers' penalty counts them."""
    rows, length = inputs.ids.shape
    valid = jnp.arange(length)[None] < inputs.lengths[:, None]
    ids = jnp.where(valid, inputs.ids, seen.shape[1])
    return constrain(seen.at[jnp.arange(rows)[:, None], ids].set(True, mode="drop"), "batch", None)


def _placed(
    decoder: Decoder, inputs: TextInputs
) -> tuple[Float[Array, "b s d"] | None, Float[Array, "n b s d"] | None]:
    """Embeddings and DeepStack features, where there are pictures."""
    if inputs.features is None or inputs.slots is None:
        return None, None
    return place_features(decoder, inputs.ids, inputs.features, inputs.slots)
