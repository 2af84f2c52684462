"""What the recorded generations share: settings, and outputs of decoding, conditions and diffusion."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.compat import ReleaseFaults
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import Euler
from mammoth_jax.models.dit.transformer import References
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.ops.patchify import patchify, unpatchify
from mammoth_jax.pipelines.programs import develop_program, paint_program
from mammoth_jax.sampling.decode import (
    DecodePlan,
    Prefill,
    Requests,
    VisualVocabulary,
    decode_chunk,
    decoded_sequence,
    guided_logits,
    reread,
    start,
)
from mammoth_jax.sampling.logits import SamplingSettings
from mammoth_jax.sampling.unified import ConditionPlan, Drawing, finish

RELEASED_OPENING = 10  # tokens at the prompt's end that the recorded masks take for the answer opening


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the recording states of a generation."""

    model: Mammoth
    flow: dict[str, Any]
    ids: np.ndarray  # [n, L] conditional prompts
    negative: np.ndarray  # [n, Ln]
    second_pass: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        return self.flow["ar"]["ar_height"], self.flow["ar"]["ar_width"]

    @property
    def num_steps(self) -> int:
        return self.grid[0] * (self.grid[1] + 1)

    @property
    def plan(self) -> DecodePlan:
        ar, config = self.flow["ar"], self.model.config
        last = config.backbone.decoder.gen_vocab_start_index + config.backbone.decoder.gen_vocab_size
        scope = ar["scope"]
        vocabulary = VisualVocabulary(
            ar["eol_token_id"], self.flow["tokenizer"]["eoi_id"], scope[0], min(scope[1], last)
        )
        return DecodePlan(vocabulary, config.condition.taps, heads="all")

    def condition_plan(self, mode: str | None) -> ConditionPlan:
        config = self.model.config
        return ConditionPlan(
            config.backbone.decoder.gen_vocab_start_index,
            tuple(self.flow["tokenizer"]["visual_tokens_ids"]),
            mode or config.condition.mode,  # type: ignore[arg-type]
            bool(self.flow["gen_text_condition_with_answer"]),
            self.second_pass,
        )

    def prompt_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Conditional prompts, their bare openings, and the negative prompts, right-padded; and their lengths."""
        rows = [*self.ids, *self.ids[:, -RELEASED_OPENING:], *self.negative]
        lengths = np.asarray([len(row) for row in rows], np.int32)
        ids = np.zeros((len(rows), lengths.max()), np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return ids, lengths

    def requests(self) -> Requests:
        n, ar = len(self.ids), self.flow["ar"]
        rows = np.arange(n, dtype=np.int32)
        temperature = ar["temperature"] if ar["do_sample"] else 0.0
        return Requests(
            prompt=rows,
            opening=rows + n,
            seed=np.zeros(n, np.uint32),
            grid_rows=np.full(n, self.grid[0], np.int32),
            grid_cols=np.full(n, self.grid[1], np.int32),
            settings=SamplingSettings(
                guidance=np.full(n, ar["cfg_scale"], np.float32),
                temperature=np.full(n, temperature, np.float32),
                top_k=np.full(n, ar["top_k"] or 0, np.int32),
                top_p=np.full(n, ar["top_p"], np.float32),
                repetition_penalty=np.full(n, ar["repetition_penalty"], np.float32),
            ),
        )


def token_outputs(case: Case, setting: Setting, drawing: Drawing, prompts: np.ndarray) -> dict[str, Any]:
    """Ids and masks in the recorded layout: conditional rows, then their unconditional copies."""
    n, length, steps = len(setting.ids), setting.ids.shape[1], setting.num_steps
    tokens = np.asarray(drawing.tokens, np.int64)
    generated = np.concatenate([setting.ids, tokens[:, :steps]], axis=1)
    mask = np.concatenate([case.inputs["attention_mask"], np.ones((2 * n, steps), np.int64)], axis=1)
    mask[n:, : length - RELEASED_OPENING] = 0
    full_mask = np.concatenate([mask[:n], np.ones((n, 1), np.int64)], axis=1)
    answer = np.arange(full_mask.shape[1]) >= length - RELEASED_OPENING
    return {
        "generated_ids": np.concatenate(
            [generated, np.concatenate([prompts[n:], tokens[:, :steps]], axis=1)]
        ),
        "generated_attention_mask": mask,
        "full_ids": np.concatenate([generated, tokens[:, steps : steps + 1]], axis=1),
        "full_mask": full_mask,
        "questions_mask": full_mask * ~answer,
        "answers_mask": full_mask * answer,
    }


def condition_outputs(drawing: Drawing) -> dict[str, Any]:
    """The compacted conditions, cut to their longest row as recorded."""
    positive, negative = drawing.positive, drawing.negative
    assert positive.image is not None and positive.image_mask is not None and negative is not None
    pairs = {
        "text_condition": (positive.text, positive.text_mask),
        "image_condition": (positive.image, positive.image_mask),
        "negative_condition": (negative.text, negative.text_mask),
    }
    out: dict[str, Any] = {}
    for name, (features, mask) in pairs.items():
        size = int(np.asarray(mask).sum(1).max())
        out[name] = np.asarray(features)[:, :size]
        out[f"{name}_mask"] = np.asarray(mask, np.int64)[:, :size]
    return out


@dataclasses.dataclass(frozen=True)
class Stepped:
    drawing: Drawing
    state: Any
    outputs: dict[str, Any]


def step_by_step(
    setting: Setting, prompts: Prefill, answer_start: np.ndarray, negative_rows: np.ndarray
) -> Stepped:
    """The same decoding in chunks of one step, with the scores of every step and the features of every token."""
    plan, n = setting.plan, len(setting.ids)
    guided = setting.flow["ar"]["cfg_scale"] > 1
    begin = jax.jit(
        lambda decoder, prompts, requests: start(
            decoder, prompts, requests, setting.num_steps + 1, plan, guided=guided
        )
    )
    advance = jax.jit(lambda decoder, state: decode_chunk(decoder, state, 1, plan))
    state = begin(setting.model.decoder, prompts, setting.requests())
    raw, guided_scores = [], []
    for _ in range(setting.num_steps):
        logits = np.asarray(state.logits)
        raw.append(np.stack([logits[0], logits[n if guided else 0]]))
        guided_scores.append(np.asarray(guided_logits(state)[0]))
        state = advance(setting.model.decoder, state)
    state = advance(setting.model.decoder, state)
    sequence = decoded_sequence(prompts, state, jnp.asarray(answer_start))
    if setting.second_pass:
        sequence = jax.jit(reread, static_argnames="taps")(setting.model.decoder, sequence, taps=plan.taps)
    order = np.argsort(~np.asarray(sequence.valid), axis=1, kind="stable")
    length = setting.ids.shape[1] + setting.num_steps + 1
    hidden = np.take_along_axis(np.asarray(sequence.features), order[..., None], axis=1)[:, :length]
    drawing = finish(
        setting.model.decoder,
        prompts,
        state,
        jnp.asarray(answer_start),
        negative_rows,
        plan=plan,
        conditions=setting.condition_plan(None),
    )
    outputs = {
        "ar_logits": np.stack(raw),
        "ar_cfg_logits": np.stack(guided_scores),
        "positive_hidden": hidden,
    }
    return Stepped(drawing, state, outputs)


def diffusion_outputs(
    case: Case,
    setting: Setting,
    run: str,
    cfg_range: tuple[float, float],
    drawing: Drawing,
    references: References | None = None,
    image_guidance: float | None = None,
) -> dict[str, Any]:
    """One diffusion run with the release's sticky guidance."""
    model, flow = setting.model, setting.flow
    assert model.dit is not None and model.vae is not None
    n, patch = len(setting.ids), model.config.dit.patch_size
    noise = np.moveaxis(case.inputs["init_latents"], 1, -1)
    rows, cols = noise.shape[1] // patch, noise.shape[2] // patch
    steps = flow["num_inference_steps"]
    times = inference_times(steps, [noise.shape[1:3]] * n)
    faults = ReleaseFaults(sticky_guidance=True)
    guided = guided_steps(steps, cfg_range, faults)
    result = paint_program(
        model.dit,
        model.refiner,
        drawing.positive,
        drawing.negative,
        np.asarray(patchify(noise, patch)),
        np.full((n, 2), (rows, cols), np.int32),
        times,
        guided,
        np.full(n, flow["text_guidance_scale"], np.float32),
        None if image_guidance is None else np.full(n, image_guidance, np.float32),
        references,
        num_tokens=rows * cols,
        solver=Euler(),
        guidance="always" if guided.all() else "ranged",
        faults=faults,
        trace=True,
    )

    def grids(x: Array) -> np.ndarray:
        flat = x.reshape(-1, *x.shape[-2:])
        pictures = np.moveaxis(np.asarray(unpatchify(flat, rows, cols, patch)), -1, 1)
        return pictures.reshape(*x.shape[:-2], *pictures.shape[1:])

    pixels, latents = develop_program(
        model.vae,
        result.latents,
        np.arange(n, dtype=np.int32),
        grid=(rows, cols),
        patch_size=patch,
        tiling=Tiling(),
    )
    assert result.velocities is not None and result.trajectory is not None
    return {
        f"{run}.timesteps": times[:-1, 0],
        f"{run}.model_pred": grids(result.velocities),
        f"{run}.latents": grids(result.trajectory),
        f"{run}.image": np.moveaxis(np.asarray(_decode(model.vae, latents)), -1, 1),
        f"{run}.image_u8": np.asarray(pixels),
    }


@jax.jit
def _decode(vae: VAE, latents: Array) -> Array:
    return vae.decode(vae.unscale_latents(latents))
