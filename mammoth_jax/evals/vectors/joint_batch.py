"""The recorded joint samples as packed rows, by the contract of ``data/packing``."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.types import Float, Int
from mammoth_jax.evals.vectors.case import Case
from mammoth_jax.evals.vectors.dit_batch import to_tokens, token_grid
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.ntp import IGNORED
from mammoth_jax.processing.condition_tokens import condition_tokens
from mammoth_jax.processing.mrope import Qwen3VLBlocks, multimodal_positions

Arrays = dict[str, np.ndarray]
GridSize = tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class JointSample:
    """A recorded sample without its padding.

    Attributes:
      ids, labels, positions: its tokens.
      text, image: tokens of either condition.
      data, noise: patch tokens of its target of ``grid``.
      time: final.
      references: grids and patch tokens.
      seen: what the vision tower reads, a row of one picture; None without.
      slots: the tower's token at each place, -1 where there is none.
    """

    ids: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, "3 n"]
    text: Int[np.ndarray, " t"]
    image: Int[np.ndarray, " i"]
    grid: GridSize
    data: Float[np.ndarray, "n p"]
    noise: Float[np.ndarray, "n p"]
    time: float
    references: tuple[tuple[GridSize, Float[np.ndarray, "m p"]], ...]
    seen: Arrays | None
    slots: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ids)


def read_samples(case: Case, variant: str, model: Mammoth) -> list[JointSample]:
    """The samples of a variant of the case, in order."""
    config = model.config
    inputs = {
        name.removeprefix(f"{variant}."): x for name, x in case.inputs.items() if name.startswith(variant)
    }
    return [_read(case, inputs, row, config, model) for row in range(len(inputs["input_ids"]))]


def _read(case: Case, inputs: Arrays, row: int, config: MammothConfig, model: Mammoth) -> JointSample:
    valid = inputs["attention_mask"][row].astype(bool)
    ids, labels, answer = (
        inputs[name][row][valid].astype(np.int32) for name in ("input_ids", "labels", "answers_mask")
    )
    text, image = condition_tokens(
        ids,
        answer.astype(bool),
        generation_start=config.backbone.decoder.gen_vocab_start_index,
        vision_ids=tuple(case.entry["flow"]["tokenizer"]["visual_tokens_ids"]),
        mode=case.entry["flow"]["gen_condition_mode"],
        with_answer_text=case.entry["flow"]["gen_text_condition_with_answer"],
    )
    backbone, patch = config.backbone, config.dit.patch_size
    images = inputs.get("image_grid_thw", np.zeros((0, 3), np.int64))
    positions = multimodal_positions(
        ids[None],
        np.ones((1, len(ids)), bool),
        Qwen3VLBlocks(backbone.vision.spatial_merge_size),
        image_token_id=backbone.image_token_id,
        video_token_id=backbone.video_token_id,
        images=images,
    )
    seen = None
    if "pixel_values" in inputs:
        assert model.vision is not None
        read = model.vision.prepare(inputs["pixel_values"], images)
        names = ("patches", "rope_ids", "frames", "cells", "cell_weights")
        seen = {name: getattr(read, name)[0] for name in names}
    shown = ids == backbone.image_token_id
    latents = [inputs[name] for name in (f"ref_latents.{row}",) if name in inputs]
    return JointSample(
        ids=ids,
        labels=labels,
        positions=positions.ids[:, 0],
        text=np.flatnonzero(text),
        image=np.flatnonzero(image),
        grid=token_grid(inputs[f"x1.{row}"], patch),
        data=to_tokens(inputs[f"x1.{row}"], patch),
        noise=to_tokens(inputs[f"x0.{row}"], patch),
        time=float(inputs["t"][row]),
        references=tuple((token_grid(x, patch), to_tokens(x, patch)) for x in latents),
        seen=seen,
        slots=np.where(shown, np.cumsum(shown) - 1, -1).astype(np.int32),
    )


def pack(rows: Sequence[Sequence[JointSample]], num_queries: int) -> Arrays:
    """Rows of samples as the step takes them, padded to the longest; ``noise`` and ``time`` are the recorded ones."""
    tokens = max(sum(map(len, row)) for row in rows)
    samples = max(map(len, rows))
    packed = [_row(row, tokens, samples, num_queries) for row in rows]
    out = {}
    for name, fill in _FILL.items():
        present = [row[name] for row in packed if name in row]
        if not present or not any(x.size for x in present):
            continue
        length = max(len(x) for x in present)
        padded = [
            np.pad(x, ((0, length - len(x)), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
            for x in present
        ]
        out[name] = np.stack(padded)
    out["token_positions"] = np.moveaxis(out["token_positions"], 1, 2)
    return _with_joint(out)


_FILL = {
    **dict.fromkeys(("ids", "token_segments", "token_positions", "token_sample"), 0),
    **dict.fromkeys(("patches", "patch_rope", "patch_frames", "patch_cells", "patch_cell_weights"), 0),
    **dict.fromkeys(("condition_segments", "reference_patches", "reference_segments"), 0),
    **dict.fromkeys(("reference_number", "reference_sample", "reference_positions"), 0),
    **dict.fromkeys(("target_mean", "target_std", "target_sample", "target_positions", "noise", "time"), 0),
    **dict.fromkeys(("sample_number", "sample_task", "sample_tokens"), 0),
    **dict.fromkeys(("feature_slots", "condition_index"), -1),
    "labels": IGNORED,
}
"""Every array but the joint sequence's, and its padding."""


def _row(row: Sequence[JointSample], tokens: int, samples: int, num_queries: int) -> Arrays:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _FILL}
    start = merged = frames = pictures = 0
    for number, sample in enumerate(row, 1):
        length = len(sample.text) + num_queries
        queries = tokens + (number - 1) * num_queries + np.arange(num_queries)
        one = {
            "ids": sample.ids,
            "labels": sample.labels,
            "token_segments": np.full(len(sample), number),
            "token_positions": sample.positions.T,
            "token_sample": np.where(np.isin(np.arange(len(sample)), sample.image), number, 0),
            "feature_slots": np.where(sample.slots < 0, -1, sample.slots + merged),
            "condition_index": np.concatenate([start + sample.text, queries]),
            "condition_segments": np.full(length, number),
        }
        if sample.seen is not None:
            seen = {**sample.seen, "frames": sample.seen["frames"] + frames}
            names = {"patches": "patches", "rope_ids": "patch_rope", "frames": "patch_frames"}
            names |= {"cells": "patch_cells", "cell_weights": "patch_cell_weights"}
            one |= {ours: seen[name] for name, ours in names.items()}
            merged += int(np.count_nonzero(sample.slots >= 0))
            frames = int(seen["frames"].max())
        offset = length
        for place, (grid, patches) in enumerate(sample.references):
            pictures += 1
            _append(parts, "reference_patches", patches)
            for name, value in (("segments", pictures), ("number", place), ("sample", number)):
                _append(parts, f"reference_{name}", np.full(len(patches), value))
            _append(parts, "reference_positions", _grid(offset, grid))
            offset += max(grid)
        one |= {
            "target_mean": sample.data,
            "target_std": np.zeros_like(sample.data),
            "target_sample": np.full(len(sample.data), number),
            "target_positions": _grid(offset, sample.grid),
            "noise": sample.noise,
            "time": np.asarray([sample.time], np.float32),
            "sample_number": np.asarray([number], np.uint32),
            "sample_task": np.asarray([0]),
            "sample_tokens": np.asarray([len(sample.data)]),
        }
        for name, x in one.items():
            _append(parts, name, x)
        start += len(sample)
    floats = {
        "patches",
        "patch_cell_weights",
        "reference_patches",
        "target_mean",
        "target_std",
        "noise",
        "time",
    }
    return {
        name: np.concatenate(x).astype(
            np.float32 if name in floats else np.uint32 if name == "sample_number" else np.int32
        )
        for name, x in parts.items()
        if x
    }


def _append(parts: dict[str, list[np.ndarray]], name: str, x: np.ndarray) -> None:
    parts[name].append(x)


def _with_joint(batch: Arrays) -> Arrays:
    """With the joint sequences: sample after sample, each condition, references, target."""
    if "reference_patches" not in batch:
        rows, values = len(batch["ids"]), batch["target_mean"].shape[-1]
        batch["reference_patches"] = np.zeros((rows, 0, values), np.float32)
        batch |= {f"reference_{n}": np.zeros((rows, 0), np.int32) for n in ("segments", "number", "sample")}
        batch["reference_positions"] = np.zeros((rows, 0, 3), np.int32)
    owner = np.concatenate(
        [batch[name] for name in ("condition_segments", "reference_sample", "target_sample")], axis=1
    )
    order = np.argsort(np.where(owner == 0, owner.max() + 1, owner), axis=1, kind="stable")
    segments = np.take_along_axis(owner, order, axis=1)
    length = int((segments > 0).sum(axis=1).max())
    batch["joint_index"] = np.where(segments > 0, order, -1)[:, :length].astype(np.int32)
    batch["joint_segments"] = segments[:, :length].astype(np.int32)
    return batch


def _grid(first: int, grid: GridSize) -> Int[np.ndarray, "n 3"]:
    rows, cols = np.indices(grid).reshape(2, -1)
    return np.stack([np.full_like(rows, first), rows, cols], axis=1)
