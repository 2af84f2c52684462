"""Autoregressive decoding of visual tokens: one prefill, then steps on the device over a public state.

A picture is one *row*: its visual tokens in raster order, a forced end-of-line after every grid row and a forced
image-end, each fed back so that its features are there for the condition of the diffusion transformer.  With guidance
a row has a second cache row that sees only the answer opening.  Rows differ in prompt, seed, grid and settings, and
depend on nothing but their own; between chunks of steps rows may be replaced (:func:`admit`).
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.rng import named_key
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.models.backbone.cache import CacheFormat, KVCache
from mammoth_jax.models.backbone.decoder import GENERATION_EXPERT, Decoder, Heads, Taps
from mammoth_jax.models.backbone.multimodal import place_features
from mammoth_jax.models.backbone.vision_inputs import VisionFeatures
from mammoth_jax.sampling.logits import SamplingSettings, choose, guide, process


@dataclasses.dataclass(frozen=True)
class VisualVocabulary:
    """Ids that the picture grammar uses; visual tokens are ``visual_start <= id < visual_end``."""

    end_of_line: int
    image_end: int
    visual_start: int
    visual_end: int


@dataclasses.dataclass(frozen=True)
class DecodePlan:
    """What a decoding program is compiled for besides shapes.

    ``heads`` is ``generation`` in use, since only visual tokens can be drawn; ``all`` scores the joint vocabulary.
    """

    vocabulary: VisualVocabulary
    taps: Taps
    heads: Heads = "generation"
    cache_format: CacheFormat = "model"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefill:
    """Prompts after one pass, right-padded: caches, condition features, scores after the last token."""

    ids: Int[Array, "p s"]
    cache: KVCache
    features: Float[Array, "p s d"]
    logits: Float[Array, "p c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptPictures:
    """Pictures in prompts: their features, where these go, and the rope positions that they make."""

    features: VisionFeatures
    slots: Int[Array, "p s"]  # feature of each placeholder (models/backbone/multimodal.py)
    positions: Int[Array, "3 p s"]
    next_position: Int[Array, " p"]  # of the first decoded token


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Requests:
    """What each picture asks for: rows of the prefill, seed, token grid and sampling settings."""

    prompt: Int[Array, " r"]  # prefill row of the prompt
    opening: Int[Array, " r"]  # prefill row of the bare answer opening, for guidance
    seed: Int[Array, " r"]
    grid_rows: Int[Array, " r"]
    grid_cols: Int[Array, " r"]
    settings: SamplingSettings

    @property
    def num_tokens(self) -> Int[Array, " r"]:
        """Tokens a picture takes: its grid with an end-of-line a row, and the image-end; 0 for an empty row."""
        cells = self.grid_rows * (self.grid_cols + 1)
        return jnp.where(cells > 0, cells + 1, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """Everything that decoding carries from step to step."""

    cache: KVCache  # r conditional rows, then (with guidance) r unconditional ones
    logits: Float[Array, "r2 c"]  # scores of the next token, for the same rows, before any processing
    requests: Requests
    seen: Bool[Array, "r c"]  # columns that occur in the prompt or were drawn
    tokens: Int[Array, "r n"]  # ids so far
    features: Float[Array, "r n d"]  # condition features of these
    count: Int[Array, " r"]  # how many

    @property
    def active(self) -> Bool[Array, " r"]:
        """Rows that are not finished."""
        return self.count < self.requests.num_tokens

    @property
    def guided(self) -> bool:
        """Whether rows have an unconditional twin (known from the shapes)."""
        return self.logits.shape[0] == 2 * self.count.shape[0]


def prefill(
    decoder: Decoder,
    ids: Int[Array, "p s"],
    lengths: Int[Array, " p"],
    plan: DecodePlan,
    pictures: PromptPictures | None = None,
) -> Prefill:
    """Runs right-padded prompts once, whatever the number of pictures drawn from each."""
    p, s = ids.shape
    valid = jnp.arange(s)[None] < lengths[:, None]
    positions, next_position = jnp.broadcast_to(jnp.arange(s)[None, None], (3, p, s)), lengths
    embeddings = deepstack = None
    if pictures is not None:
        positions, next_position = pictures.positions, pictures.next_position
        embeddings, deepstack = place_features(decoder, ids, pictures.features, pictures.slots)
    out = decoder(
        ids,
        positions,
        segments=valid.astype(jnp.int32),
        embeddings=embeddings,
        deepstack=deepstack,
        taps=plan.taps,
        keep_cache=True,
        gradients=False,
    )
    assert out.keys is not None and out.values is not None and out.features is not None
    last = jnp.take_along_axis(out.hidden, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
    cache = KVCache(out.keys, out.values, jnp.zeros_like(lengths), lengths, next_position)
    return Prefill(ids, cache, out.features, decoder.logits(last, plan.heads))


def start(
    decoder: Decoder, prompts: Prefill, requests: Requests, max_tokens: int, plan: DecodePlan, *, guided: bool
) -> DecodeState:
    """The state before the first token: each picture with its own copy of its prompt's cache."""
    r = requests.prompt.shape[0]
    rows = jnp.concatenate([requests.prompt, requests.opening]) if guided else requests.prompt
    capacity = prompts.ids.shape[1] + max_tokens
    return DecodeState(
        cache=prompts.cache.in_format(plan.cache_format).take(rows, capacity),
        logits=prompts.logits[rows],
        requests=requests,
        seen=_seen_in_prompt(decoder, prompts, plan)[requests.prompt],
        tokens=jnp.zeros((r, max_tokens), jnp.int32),
        features=jnp.zeros((r, max_tokens, prompts.features.shape[-1]), prompts.features.dtype),
        count=jnp.zeros((r,), jnp.int32),
    )


def admit(
    decoder: Decoder,
    state: DecodeState,
    row: Int[Array, ""],
    prompts: Prefill,
    request: Requests,
    plan: DecodePlan,
) -> DecodeState:
    """Puts one new picture (a :class:`Requests` of one row) in place of row ``row``; the others go on untouched.

    The prompt must fit: its padded length plus its tokens may not exceed the state's capacity.
    """
    r = state.count.shape[0]
    cache = state.cache.put(row, prompts.cache, request.prompt[0])
    logits = state.logits.at[row].set(prompts.logits[request.prompt[0]])
    if state.guided:
        cache = cache.put(row + r, prompts.cache, request.opening[0])
        logits = logits.at[row + r].set(prompts.logits[request.opening[0]])
    return DecodeState(
        cache=cache,
        logits=logits,
        requests=jax.tree.map(lambda old, new: old.at[row].set(new[0]), state.requests, request),
        seen=state.seen.at[row].set(_seen_in_prompt(decoder, prompts, plan)[request.prompt[0]]),
        tokens=state.tokens.at[row].set(0),
        features=state.features.at[row].set(0),
        count=state.count.at[row].set(0),
    )


def step(decoder: Decoder, state: DecodeState, plan: DecodePlan) -> DecodeState:
    """Draws the next token of every active row and feeds it."""
    r = state.count.shape[0]
    ids = _next_ids(decoder, state, plan)
    active = state.active
    twice = (lambda x: jnp.concatenate([x, x])) if state.guided else (lambda x: x)
    hidden, features, cache = decoder.step(
        twice(ids), state.cache, expert=GENERATION_EXPERT, write=twice(active), taps=plan.taps
    )
    assert features is not None
    slot = jnp.where(active, state.count, state.tokens.shape[1])
    rows = jnp.arange(r)
    columns = _column(decoder, ids, plan)
    return DecodeState(
        cache=cache,
        logits=jnp.where(twice(active)[:, None], decoder.logits(hidden, plan.heads), state.logits),
        requests=state.requests,
        seen=state.seen.at[rows, columns].max(active),
        tokens=state.tokens.at[rows, slot].set(ids, mode="drop"),
        features=state.features.at[rows, slot].set(features[:r].astype(state.features.dtype), mode="drop"),
        count=state.count + active,
    )


def decode_chunk(
    decoder: Decoder, state: DecodeState, num_steps: Int[Array, ""] | int, plan: DecodePlan
) -> DecodeState:
    """At most ``num_steps`` steps (a value, not a shape), fewer when all rows finish: one launch."""

    def unfinished(carry):
        done, state = carry
        return (done < num_steps) & jnp.any(state.active)

    def advance(carry):
        done, state = carry
        return done + 1, step(decoder, state, plan)

    decoder = decoder.for_steps()
    return jax.lax.while_loop(unfinished, advance, (jnp.asarray(0, jnp.int32), state))[1]


def guided_logits(state: DecodeState) -> Float[Array, "r c"]:
    """Scores of the next token after guidance, before any other processing."""
    r = state.count.shape[0]
    if not state.guided:
        return state.logits
    return guide(state.logits[:r], state.logits[r:], state.requests.settings.guidance)


def _next_ids(decoder: Decoder, state: DecodeState, plan: DecodePlan) -> Int[Array, " r"]:
    """Drawn visual tokens, or the token that the grid forces."""
    requests, vocabulary = state.requests, plan.vocabulary
    columns = jnp.arange(state.logits.shape[1])
    first, stop = (_column(decoder, x, plan) for x in (vocabulary.visual_start, vocabulary.visual_end))
    scores = process(
        guided_logits(state), requests.settings, state.seen, (columns >= first) & (columns < stop)
    )
    keys = jax.vmap(lambda seed, at: named_key(jax.random.key(seed), "visual token", at))(
        requests.seed, state.count
    )
    drawn = choose(scores, requests.settings.temperature, keys) - first + vocabulary.visual_start
    ends_line = (state.count + 1) % (requests.grid_cols + 1) == 0
    ids = jnp.where(ends_line, vocabulary.end_of_line, drawn)
    return jnp.where(state.count + 1 >= requests.num_tokens, vocabulary.image_end, ids).astype(jnp.int32)


def _column(decoder: Decoder, ids: Int[Array, "..."] | int, plan: DecodePlan) -> Int[Array, "..."] | int:
    """The score column of a generation id."""
    config = decoder.config
    return ids - config.gen_vocab_start_index + (config.vocab_size if plan.heads == "all" else 0)


def _seen_in_prompt(decoder: Decoder, prompts: Prefill, plan: DecodePlan) -> Bool[Array, "p c"]:
    """Generation tokens that a prompt holds (reference pictures), for the repetition penalty."""
    p, s = prompts.ids.shape
    valid = (jnp.arange(s)[None] < prompts.cache.length[:, None]) & decoder.is_generation(prompts.ids)
    columns = jnp.where(valid, _column(decoder, prompts.ids, plan), prompts.logits.shape[1])
    seen = jnp.zeros((p, prompts.logits.shape[1]), bool)
    return seen.at[jnp.arange(p)[:, None], columns].set(True, mode="drop")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodedSequence:
    """Prompt and picture tokens of each row with their condition features (paper section 2.3).

    For text to image the release's second pass over the finished sequence is not needed: attention is causal, so its
    features are those met while decoding.  With pictures in the prompt it differs: see :func:`reread`.
    """

    ids: Int[Array, "r s"]
    features: Float[Array, "r s d"]
    valid: Bool[Array, "r s"]
    is_answer: Bool[Array, "r s"]


def decoded_sequence(prompts: Prefill, state: DecodeState, answer_start: Int[Array, " p"]) -> DecodedSequence:
    """Joins each row's prompt with what was decoded; ``answer_start`` is where the answer opens in each prompt."""
    rows = state.requests.prompt
    in_prompt = jnp.arange(prompts.ids.shape[1])[None]
    in_tokens = jnp.arange(state.tokens.shape[1])[None]
    valid_prompt = in_prompt < prompts.cache.length[rows][:, None]
    valid_tokens = in_tokens < state.count[:, None]
    return DecodedSequence(
        ids=jnp.concatenate([prompts.ids[rows], state.tokens], axis=1),
        features=jnp.concatenate([prompts.features[rows], state.features], axis=1),
        valid=jnp.concatenate([valid_prompt, valid_tokens], axis=1),
        is_answer=jnp.concatenate(
            [valid_prompt & (in_prompt >= answer_start[rows][:, None]), valid_tokens], axis=1
        ),
    )


def reread(decoder: Decoder, sequence: DecodedSequence, taps: Taps) -> DecodedSequence:
    """The features of the release's pass over an edit's sequence: no pixels, one-dimensional positions.

    Picture placeholders carry their plain token embedding there.
    """
    count = jnp.cumsum(sequence.valid, axis=1) - 1
    positions = jnp.broadcast_to(jnp.where(sequence.valid, count, 1)[None], (3, *count.shape))
    out = decoder(
        sequence.ids, positions, segments=sequence.valid.astype(jnp.int32), taps=taps, gradients=False
    )
    assert out.features is not None
    return dataclasses.replace(sequence, features=out.features)
