"""From prompts to pictures in four compiled programs: prefill, visual tokens, diffusion, decoding.

Each is a pure function of the weights that it needs and of arrays, so a script can jit it by itself, and a policy
copy, an expert or an adapter can be put under the same program:

``encode_prompts`` -> ``draw_tokens`` (all rows, all grids) -> ``paint`` (all sizes) -> ``develop`` (one picture size)
"""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Bool, Float, Int, UInt8
from mammoth_jax.flow.solvers import Solver
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.conditions import Condition, ConditionMode, build_condition
from mammoth_jax.models.dit.transformer import DiT, References
from mammoth_jax.models.mammothtok.model import MammothTok, to_uint8
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.models.vae.model import VAE, postprocess
from mammoth_jax.ops.patchify import unpatchify
from mammoth_jax.sampling.decode import (
    DecodedSequence,
    DecodePlan,
    DecodeState,
    Prefill,
    PromptPictures,
    Requests,
    decode_chunk,
    decoded_sequence,
    prefill,
    reread,
    start,
)
from mammoth_jax.sampling.diffusion import DiffusionResult, Guidance, OnStep, diffuse, initial_noise
from mammoth_jax.sampling.step_cache import StepCache


@dataclasses.dataclass(frozen=True)
class ConditionPlan:
    """Which tokens condition the diffusion transformer; see :func:`build_condition`.

    ``second_pass`` takes the features of a pass without pixels over the finished sequence, as the release does for
    edits, instead of those met while decoding.  ``text_size`` is the padded length of the text; by default a whole
    prompt has room, which is far more than its text where it shows pictures.
    """

    generation_start: int
    vision_ids: tuple[int, ...]
    mode: ConditionMode
    with_answer_text: bool
    second_pass: bool = False
    text_size: int | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawing:
    """Visual tokens of each row (ids, in the order of decoding) and what the diffusion transformer gets of them."""

    tokens: Int[Array, "r n"]
    positive: Condition
    negative: Condition | None


def encode_prompts(
    decoder: Decoder,
    ids: Int[Array, "p s"],
    lengths: Int[Array, " p"],
    plan: DecodePlan,
    pictures: PromptPictures | None = None,
) -> Prefill:
    """Program 1: all prompts (positive, answer openings, negative) in one pass."""
    return prefill(decoder, constrain(ids, "batch", None), lengths, plan, pictures)


def draw_tokens(
    decoder: Decoder,
    prompts: Prefill,
    requests: Requests,
    answer_start: Int[Array, " p"],
    negative_rows: Int[Array, " r"] | None,
    *,
    plan: DecodePlan,
    conditions: ConditionPlan,
    max_tokens: int,
    guided: bool,
    steps: Decoder | None = None,
) -> Drawing:
    """Program 2: the visual tokens of every row, from the first to the image-end, and their condition features.

    ``steps`` is what the loop runs instead of ``decoder``: its int8 form (``models/backbone/int8_weights.py``).  A
    second pass, if there is one, is ``decoder``'s all the same.
    """
    state = start(decoder, prompts, requests, max_tokens, plan, guided=guided)
    state = decode_chunk(decoder if steps is None else steps, state, max_tokens, plan)
    return finish(decoder, prompts, state, answer_start, negative_rows, plan=plan, conditions=conditions)


def finish(
    decoder: Decoder,
    prompts: Prefill,
    state: DecodeState,
    answer_start: Int[Array, " p"],
    negative_rows: Int[Array, " r"] | None,
    *,
    plan: DecodePlan,
    conditions: ConditionPlan,
) -> Drawing:
    """Tokens and conditions of finished rows."""
    sequence = decoded_sequence(prompts, state, answer_start)
    if conditions.second_pass:
        sequence = reread(decoder, sequence, plan.taps)
    # all text, reasoning included, is in the prompt: what was decoded are generation tokens alone
    text_size = conditions.text_size or prompts.ids.shape[1]
    condition = _select(sequence, conditions, text_size, state.tokens.shape[1] + 2)
    negative = None if negative_rows is None else negative_condition(prompts, negative_rows, text_size)
    return Drawing(state.tokens, condition, negative)


def text_condition(
    prompts: Prefill, rows: Int[Array, " r"], answer_start: Int[Array, " p"], conditions: ConditionPlan
) -> Condition:
    """The condition of pictures drawn without visual tokens: the prompt's text features."""
    at = jnp.arange(prompts.ids.shape[1])[None]
    valid = at < prompts.cache.length[rows][:, None]
    sequence = DecodedSequence(
        prompts.ids[rows], prompts.features[rows], valid, valid & (at >= answer_start[rows][:, None])
    )
    text_size = conditions.text_size or prompts.ids.shape[1]
    return _select(sequence, dataclasses.replace(conditions, mode="text"), text_size, 0)


def negative_condition(prompts: Prefill, rows: Int[Array, " r"], text_size: int) -> Condition:
    """The negative branch: every token of its own prompt (at most ``text_size``), no features of visual tokens."""
    size = min(text_size, prompts.ids.shape[1])
    valid = jnp.arange(size)[None] < prompts.cache.length[rows][:, None]
    features = jnp.where(valid[..., None], prompts.features[rows, :size], 0)
    return Condition(features, valid, None, None)


def _select(
    sequence: DecodedSequence, conditions: ConditionPlan, text_size: int, image_size: int
) -> Condition:
    return build_condition(
        sequence.features,
        sequence.ids,
        sequence.valid,
        sequence.is_answer,
        generation_start=conditions.generation_start,
        vision_ids=conditions.vision_ids,
        mode=conditions.mode,
        with_answer_text=conditions.with_answer_text,
        text_size=text_size,
        image_size=image_size,
    )


def encode_references(
    vae: VAE, pictures: Float[Array, "r rows cols 3"], noise: Float[Array, "r lr lc c"] | None = None
) -> Float[Array, "r lr lc c"]:
    """Latents of reference pictures of one size, as the diffusion transformer sees them.

    They are the posterior's means; with ``noise`` a sample, as the release takes.
    """
    posterior = vae.encode(pictures)
    return vae.scale_latents(posterior.mean if noise is None else posterior.sample(noise))


def develop(
    vae: VAE,
    latents: Float[Array, "b n p"],
    rows: Int[Array, " r"],
    *,
    grid: tuple[int, int],
    patch_size: int,
    tiling: Tiling,
) -> tuple[UInt8[Array, "r rows cols 3"], Float[Array, "r lr lc c"]]:
    """Program 4: latents of the rows of one size (``grid`` patches) to pictures; also returns them as a grid."""
    own = latents[rows, : grid[0] * grid[1]]
    grids = unpatchify(own, grid[0], grid[1], patch_size)
    return postprocess(
        vae.decode(vae.unscale_latents(grids), tiling, dtype=vae.decoder.conv_in.kernel.dtype)
    ), grids


def develop_tokens(
    mammothtok: MammothTok,
    tokens: Int[Array, "b n"],
    rows: Int[Array, " r"],
    *,
    grid: tuple[int, int],
    visual_start: int,
) -> UInt8[Array, "r rows cols 3"]:
    """Visual tokens of the rows of one grid to pictures, by MammothTok's own decoder."""
    lines = tokens[rows, : grid[0] * (grid[1] + 1)].reshape(rows.shape[0], grid[0], grid[1] + 1)
    return to_uint8(mammothtok.decode(lines[:, :, :-1] - visual_start))


def read_prompts(
    prompts: Prefill,
    rows: Int[Array, " r"],
    answer_start: Int[Array, " p"],
    negative_rows: Int[Array, " r"] | None,
    conditions: ConditionPlan,
) -> tuple[Condition, Condition | None]:
    """Conditions without visual tokens (diffusion from text features alone)."""
    positive = text_condition(prompts, rows, answer_start, conditions)
    if negative_rows is None:
        return positive, None
    return positive, negative_condition(prompts, negative_rows, positive.text.shape[1])


def paint(
    dit: DiT,
    refiner: QFormer | None,
    positive: Condition,
    negative: Condition | None,
    start: Float[Array, "b n p"] | Int[Array, " b"],
    sizes: Int[Array, "b 2"],
    times: Float[Array, "times b"],
    guided: Bool[Array, " steps"],
    text_guidance: Float[Array, " b"],
    image_guidance: Float[Array, " b"] | None = None,
    references: References | None = None,
    *,
    num_tokens: int,
    solver: Solver,
    guidance: Guidance,
    step_cache: StepCache | None = None,
    faults: ReleaseFaults = NO_FAULTS,
    trace: bool = False,
    on_step: OnStep | None = None,
) -> DiffusionResult:
    """Program 3: all steps of all rows, whatever their sizes; ``start`` is the noise, or the seeds to draw it from."""
    if start.ndim == 1:
        noise = initial_noise(start, num_tokens, dit.config.patch_values)
    else:
        noise = start
    return diffuse(
        dit,
        refiner,
        positive,
        negative,
        constrain(noise, "batch", None, None),
        sizes,
        times,
        solver=solver,
        guidance=guidance,
        guided=guided,
        text_guidance=text_guidance,
        image_guidance=image_guidance,
        references=references,
        step_cache=step_cache,
        faults=faults,
        trace=trace,
        on_step=on_step,
    )
