"""The recorded edit: a picture in the prompt, its tokens, and reference latents, through the pipelines' programs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from checkpoint_convert.folder import ModelFolder
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
from mammoth_jax.models.backbone.multimodal import NO_FEATURE, feature_slots
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.pipelines.programs import draw_program, encode_program
from mammoth_jax.pipelines.reference_inputs import pack_references
from mammoth_jax.processing.image import pixels
from mammoth_jax.processing.mrope import Qwen3VLBlocks, multimodal_positions, text_positions
from mammoth_jax.sampling.decode import PromptPictures
from mammoth_jax.sampling.unified import encode_references


def run_edit(case: Case) -> dict[str, Any]:
    """Greedy tokens of a prompt with a picture, the release's conditions, and its diffusion runs with references."""
    flow, inputs = case.entry["flow"], case.inputs
    n = len(inputs["init_latents"])
    model = ModelFolder.open(case.weights_path).load(single_device_mesh())
    whole = _with_reference_tokens(inputs["input_ids"], inputs["gen_codes"], flow["tokenizer"])
    setting = Setting(model, flow, whole[:n], inputs["negative_ids"], second_pass=True)
    ids, lengths = setting.prompt_rows()
    pictures = _prompt_pictures(case, setting, ids, lengths)
    answer_start = np.full(len(ids), setting.ids.shape[1] - RELEASED_OPENING, np.int32)
    negative_rows = np.arange(2 * n, 3 * n, dtype=np.int32)
    assert model.decoder is not None and model.vae is not None
    prompts = encode_program(model.decoder, ids, lengths, plan=setting.plan, pictures=pictures)
    drawing = draw_program(
        model.decoder,
        prompts,
        setting.requests(),
        answer_start,
        negative_rows,
        plan=setting.plan,
        conditions=setting.condition_plan(None),
        max_tokens=setting.num_steps + 1,
        guided=flow["ar"]["cfg_scale"] > 1,
    )
    stepped = step_by_step(setting, prompts, answer_start, negative_rows)
    if not np.array_equal(stepped.drawing.tokens, drawing.tokens):
        raise AssertionError("decoding in one launch and step by step gave different tokens")
    results = token_outputs(case, setting, drawing, whole) | condition_outputs(drawing) | stepped.outputs
    results["ar_rope_deltas"] = _rope_deltas(setting, np.asarray(pictures.next_position)[:n])
    latents, reference_outputs = _reference_latents(case, model.vae)
    references = pack_references([latents] * n, model.config.dit.patch_size)
    results |= reference_outputs
    for run, asked in flow["runs"].items():
        scale = asked["image_guidance_scale"]
        results |= diffusion_outputs(
            case,
            setting,
            run,
            tuple(asked["cfg_range"]),
            drawing,
            references,
            scale if scale > 1 else None,
        )
    return {name: results[name] for name in case.entry["outputs"]}


def _with_reference_tokens(ids: np.ndarray, codes: np.ndarray, words: Mapping[str, int]) -> np.ndarray:
    """The prompt with its placeholders replaced by the reference picture's tokens, written H*W."""

    def digits(number: int) -> list[int]:
        return [words["digit_0_id"] + int(digit) for digit in str(number)]

    rows, cols = codes.shape
    block = [words["boi_id"], *digits(rows), words["star_id"], *digits(cols), words["image_token_id"]]
    for row in codes:
        block += [words["visual_token_0_id"] + int(code) for code in row] + [words["eol_id"]]
    block += [words["eof_id"], words["eoi_id"]]
    out = ids.copy()
    for row in out:
        places = row == words["gen_placeholder_id"]
        row[places] = np.resize(block, int(places.sum()))
    return out


def _prompt_pictures(case: Case, setting: Setting, ids: np.ndarray, lengths: np.ndarray) -> PromptPictures:
    """Vision features of the conditional rows' pictures; the other rows have none."""
    config, n = setting.model.config.backbone, len(setting.ids)
    tower = setting.model.vision
    assert isinstance(tower, Qwen3VLVision)
    grids = case.inputs["image_grid_thw"][:n]
    patches = case.inputs["pixel_values"][: int(grids.prod(axis=1).sum())]
    features = jax.jit(lambda tower, inputs: tower(inputs))(tower, tower.prepare(patches, grids))
    merge = config.vision.spatial_merge_size
    valid = np.arange(ids.shape[1])[None] < lengths[:, None]
    tokens = {"image_token_id": config.image_token_id, "video_token_id": config.video_token_id}
    count = int(grids.prod(axis=1).sum()) // merge**2
    placed = feature_slots(ids[:n], valid[:n], **tokens, image_tokens=count, video_tokens=0)
    slots = np.full(ids.shape, NO_FEATURE, np.int32)
    slots[:n] = placed
    rows = multimodal_positions(ids[:n], valid[:n], Qwen3VLBlocks(merge), **tokens, images=grids)
    positions = np.broadcast_to(np.arange(ids.shape[1]), (3, *ids.shape)).copy()
    positions[:, :n] = rows.ids
    following = lengths.copy()
    following[:n] = rows.next
    return PromptPictures(features, jnp.asarray(slots), jnp.asarray(positions), jnp.asarray(following))


def _rope_deltas(setting: Setting, following: np.ndarray) -> np.ndarray:
    """What the release adds to slot numbers: conditional rows see the grid, unconditional ones the opening alone."""
    n, length = setting.ids.shape
    visible = np.zeros((n, length), bool)
    visible[:, -RELEASED_OPENING:] = True
    unconditional = text_positions(visible)[1]
    return np.concatenate([following[:, None] - length, unconditional])


def _reference_latents(case: Case, vae: VAE) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Latents of the reference pictures, sampled with the recorded noise as the release does, and their posterior."""

    @jax.jit
    def read(vae: VAE, picture: Array, noise: Array):
        posterior = vae.encode(picture)
        return encode_references(vae, picture, noise), posterior.mean, jnp.exp(0.5 * posterior.logvar)

    latents, outputs = [], {}
    count = sum(name.startswith("ref_image.") for name in case.inputs)
    for i in range(count):
        picture = pixels(Image.fromarray(case.inputs[f"ref_image.{i}"]))[None]
        noise = np.moveaxis(case.inputs[f"ref_noise.{i}"], 1, -1)
        scaled, mean, std = (np.asarray(x) for x in read(vae, picture, noise))
        latents.append(scaled[0])
        outputs[f"ref_latents.{i}"] = np.moveaxis(scaled, -1, 1)[0]
        outputs[f"ref_vae_mean.{i}"] = np.moveaxis(mean, -1, 1)
        outputs[f"ref_vae_std.{i}"] = np.moveaxis(std, -1, 1)
    return latents, outputs


RUNNERS: dict[str, Runner] = {"e2e_edit": run_edit}
