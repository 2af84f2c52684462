"""The whole recorded model: every shard through the converter, text to image through the pipelines' programs."""

from typing import Any

import jax
import numpy as np

from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.load import released_tensors
from checkpoint_convert.model import model_rules
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.generation import (
    RELEASED_OPENING,
    Setting,
    condition_outputs,
    diffusion_outputs,
    step_by_step,
    token_outputs,
)
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.programs import draw_program, encode_program
from mammoth_jax.processing.mrope import text_positions
from mammoth_jax.sampling.unified import finish

RUNS = {
    "full": ((0.0, 1.0), None),
    "early": ((0.0, 0.5), None),
    "late": ((0.3, 1.0), None),
    "text_mode": ((0.0, 1.0), "text"),
    "image_mode": ((0.0, 1.0), "image"),
}


def load_checkpoint(case: Case) -> Mammoth:
    """The case's checkpoint folder, through the converter."""
    return ModelFolder.open(case.weights_path).load(single_device_mesh())


def run_hf_checkpoint(case: Case) -> dict[str, Any]:
    """Logits of the loaded backbone, and the sum of every tensor written back under its released name."""
    model = load_checkpoint(case)
    assert model.decoder is not None
    ids, valid = case.inputs["input_ids"], case.inputs["attention_mask"].astype(bool)
    positions, _ = text_positions(valid)

    @jax.jit
    def forward(decoder: Decoder) -> Array:
        return decoder.logits(decoder(ids, positions, segments=valid.astype(np.int32)).hidden)

    names = sorted(ModelFolder.open(case.weights_path).source.specs)  # type: ignore[union-attr]
    tensors = released_tensors(model, model_rules(model.config), names)
    return {
        "logits": np.asarray(forward(model.decoder)) * valid[..., None],
        "param_sums": np.asarray([tensors[name].astype(np.float64).sum() for name in names], np.float32),
    }


def run_generate(case: Case) -> dict[str, Any]:
    """Greedy tokens with guidance, conditions, and five diffusion runs with the release's sticky guidance."""
    n = len(case.inputs["init_latents"])
    setting = Setting(
        load_checkpoint(case), case.entry["flow"], case.inputs["input_ids"][:n], case.inputs["negative_ids"]
    )
    ids, lengths = setting.prompt_rows()
    answer_start = np.full(len(ids), setting.ids.shape[1] - RELEASED_OPENING, np.int32)
    negative_rows = np.arange(2 * n, 2 * n + n, dtype=np.int32)
    decoder = setting.model.decoder
    assert decoder is not None
    prompts = encode_program(decoder, ids, lengths, plan=setting.plan)
    drawing = draw_program(
        decoder,
        prompts,
        setting.requests(),
        answer_start,
        negative_rows,
        plan=setting.plan,
        conditions=setting.condition_plan(None),
        max_tokens=setting.num_steps + 1,
        guided=setting.flow["ar"]["cfg_scale"] > 1,
    )
    results = token_outputs(case, setting, drawing, case.inputs["input_ids"]) | condition_outputs(drawing)
    stepped = step_by_step(setting, prompts, answer_start, negative_rows)
    results |= stepped.outputs
    if not np.array_equal(stepped.drawing.tokens, drawing.tokens):
        raise AssertionError("decoding in one launch and step by step gave different tokens")
    for run, (cfg_range, mode) in RUNS.items():
        conditions = (
            drawing
            if mode is None
            else finish(
                decoder,
                prompts,
                stepped.state,
                answer_start,
                negative_rows,
                plan=setting.plan,
                conditions=setting.condition_plan(mode),
            )
        )
        results |= diffusion_outputs(case, setting, run, cfg_range, conditions)
    return {name: results[name] for name in case.entry["outputs"]}


RUNNERS: dict[str, Runner] = {"hf_checkpoint": run_hf_checkpoint, "e2e_generate": run_generate}
