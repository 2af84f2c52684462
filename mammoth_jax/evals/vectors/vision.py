"""Runs our vision towers, and the decoder with pictures in its sequence, on the recorded cases of both backbones."""

from typing import Any

import jax
import numpy as np

from checkpoint_convert import vision as table
from checkpoint_convert.load import load_arrays
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.types import Array
from mammoth_jax.evals.vectors.backbone import cached_steps, load_decoder
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.models.backbone.decoder import Decoder, DecoderOutput
from mammoth_jax.models.backbone.multimodal import feature_slots, place_features
from mammoth_jax.models.backbone.vision_attention import rope_angles
from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_inputs import (
    Qwen3VLVisionInputs,
    VisionFeatures,
    window_order,
)
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision
from mammoth_jax.processing.mrope import (
    PictureBlocks,
    Qwen3VLBlocks,
    Qwen25VLBlocks,
    RowPositions,
    multimodal_positions,
)
from mammoth_jax.processing.vision_places import frame_cells

Tower = Qwen3VLVision | Qwen25VLVision
PREFIX = "model.visual."


def load_tower(case: Case) -> Tower:
    """The case's vision tower, through the converter."""
    config = table.config_from_released(case.config["vision_config"])
    tensors = {name.removeprefix(PREFIX): x for name, x in case.weights.items() if name.startswith(PREFIX)}

    def build() -> Tower:
        if isinstance(config, Qwen25VLVisionConfig):
            return Qwen25VLVision(config)
        return Qwen3VLVision(config)

    return load_arrays(abstract(build), table.rules(config), tensors, case.name)


@jax.jit
def _features(tower: Tower, inputs: Any) -> VisionFeatures:
    return tower(inputs)


@jax.jit
def _forward(
    decoder: Decoder, ids: Array, features: VisionFeatures, slots: Array, positions: Array, segments: Array
) -> tuple[DecoderOutput, Array]:
    embeddings, deepstack = place_features(decoder, ids, features, slots)
    out = decoder(
        ids,
        positions,
        segments=segments,
        embeddings=embeddings,
        deepstack=deepstack,
        keep_cache=True,
        keep_states=True,
    )
    return out, decoder.logits(out.hidden)


def run_tower(case: Case) -> dict[str, Any]:
    """Tokens, DeepStack features and intermediate values of a packed sequence."""
    tower = load_tower(case)
    patches, grids = case.inputs["pixel_values"], case.inputs["grid_thw"]
    inputs = tower.prepare(patches, grids)
    features = _features(tower, inputs)
    merge = tower.config.spatial_merge_size
    cells = np.concatenate([frame_cells(grid, merge) for grid in grids])
    results: dict[str, Any] = {
        "embeds": features.tokens[0],
        "patch_embeds": tower.patch_embed(jax.numpy.asarray(patches)),
        "rotary_freqs": rope_angles(jax.numpy.asarray(cells), tower.config.head_dim),
    }
    results |= {f"deepstack.{i}": x[0] for i, x in enumerate(features.deepstack)}
    if isinstance(tower, Qwen3VLVision) and isinstance(inputs, Qwen3VLVisionInputs):
        results["pos_embeds"] = tower.positions(jax.tree.map(jax.numpy.asarray, inputs))[0]
    if isinstance(tower, Qwen25VLVision):
        order, windows = window_order(grids, merge, tower.config.window_tokens)
        results["window_index"] = order
        sizes = np.unique(windows, return_counts=True)[1] * merge**2
        results["cu_window_seqlens"] = np.concatenate([[0], np.cumsum(sizes)])
    return {name: results[name] for name in case.entry["outputs"]}


def run_forward(case: Case) -> dict[str, Any]:
    """Every run of the case: positions, logits and hidden states with pictures in place; cached steps after it."""
    tower, decoder = load_tower(case), load_decoder(case)
    prefixes = [name.removesuffix("input_ids") for name in case.inputs if name.endswith(".input_ids")]
    runs = {
        prefix: {name.removeprefix(prefix): x for name, x in case.inputs.items() if name.startswith(prefix)}
        for prefix in prefixes
    }
    length = max(len(_patches(inputs)) for inputs in runs.values())  # all runs share one program of the tower
    results: dict[str, Any] = {}
    for prefix, inputs in runs.items():
        outputs = _run(case, tower, decoder, inputs, length)
        results |= {f"{prefix}{name}": x for name, x in outputs.items()}
    return {name: results[name] for name in case.entry["outputs"]}


def _run(
    case: Case, tower: Tower, decoder: Decoder, inputs: dict[str, np.ndarray], length: int
) -> dict[str, Any]:
    ids, valid = inputs["input_ids"], inputs["attention_mask"].astype(bool)
    images, videos = _grids(inputs, "image_grid_thw"), _grids(inputs, "video_grid_thw")
    tokens = {
        "image_token_id": case.config["image_token_id"],
        "video_token_id": case.config["video_token_id"],
    }
    unit = tower.config.spatial_merge_size**2
    features = _features(tower, tower.prepare(_patches(inputs), np.concatenate([images, videos]), [length]))
    slots = feature_slots(
        ids,
        valid,
        image_tokens=int(images.prod(axis=1).sum()) // unit,
        video_tokens=int(videos.prod(axis=1).sum()) // unit,
        **tokens,
    )
    positions: RowPositions = multimodal_positions(
        ids,
        valid,
        _blocks(tower),
        images=images,
        videos=videos,
        seconds=inputs["second_per_grid_ts"].tolist() if "second_per_grid_ts" in inputs else None,
        **tokens,
    )
    out, logits = _forward(decoder, ids, features, slots, positions.ids, valid.astype(np.int32))
    assert out.states is not None
    states = np.asarray(out.states)
    if decoder.config.mrope_layout == "chunked":  # that release lists the final norm's output last
        states = np.concatenate([states[:-1], np.asarray(out.hidden)[None]])
    results = {
        "position_ids": positions.ids,
        "rope_deltas": positions.deltas,
        "logits": np.asarray(logits) * valid[..., None],
        "hidden_states": states * valid[None, ..., None],
    }
    if "step_tokens" in inputs:
        steps = cached_steps(decoder, out, inputs["step_tokens"], valid, positions.ids, positions.deltas)
        results["step_logits"] = steps["step_logits"]
    return results


def _blocks(tower: Tower) -> PictureBlocks:
    config = tower.config
    if isinstance(config, Qwen25VLVisionConfig):
        return Qwen25VLBlocks(config.spatial_merge_size, config.tokens_per_second)
    return Qwen3VLBlocks(config.spatial_merge_size)


def _grids(inputs: dict[str, np.ndarray], name: str) -> np.ndarray:
    return inputs.get(name, np.zeros((0, 3), np.int64))


def _patches(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The patches of all images, then those of all videos."""
    return np.concatenate(
        [inputs[name] for name in ("pixel_values", "pixel_values_videos") if name in inputs]
    )


RUNNERS: dict[str, Runner] = {
    "vision_tower": run_tower,
    "vl_forward": run_forward,
    "q25_vision_tower": run_tower,
    "q25_vl_forward": run_forward,
}
