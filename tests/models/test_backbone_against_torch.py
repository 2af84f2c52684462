"""Both backbones against transformers' own PyTorch models: pictures, videos, a padded batch, decoding with a cache.

The vectors' README says how they were recorded.  Everything here goes the way of a chat: pictures to patches, layout,
positions, the tower with padding, reading a batch, one token at a time, whole answers.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from checkpoint_convert import backbone as decoder_table
from checkpoint_convert import vision as vision_table
from checkpoint_convert.load import load_arrays
from checkpoint_convert.safetensors_file import read_header, read_tensor
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.multimodal import feature_slots, place_features
from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.chat import QWEN3VL_CHAT, QWEN25VL_CHAT, Conversation, Media, TimedGrid
from mammoth_jax.processing.mrope import Qwen3VLBlocks, Qwen25VLBlocks, RowPositions, multimodal_positions
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.video import (
    Qwen3VLRule,
    Qwen25VLRule,
    VideoPatches,
    VideoProcessorConfig,
    sample_clip,
    video_patches,
)
from mammoth_jax.processing.vision import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    Patches,
    VisionProcessorConfig,
    image_patches,
)
from mammoth_jax.sampling.logits import SamplingSettings
from mammoth_jax.sampling.text import (
    TEXT_EXPERT,
    ReadPrompts,
    TextInputs,
    TextPlan,
    TextRequests,
    read,
    write_answers,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "backbone_torch"
TOLERANCE = 1e-4
PATCHES = 192
"""Padded length of all pictures of a batch."""
PROMPT, CAPACITY = 96, 160
"""Padded lengths of prompts, and of prompts with 64 tokens after them."""

see = jax.jit(lambda tower, inputs: tower(inputs))
run_read = jax.jit(read, static_argnames="capacity")
run_write = jax.jit(write_answers, static_argnames=("max_tokens", "plan"))


@jax.jit
def feed(decoder: Decoder, ids: Any, cache: Any) -> Any:
    hidden, _, cache = decoder.step(ids, cache, expert=TEXT_EXPERT)
    return decoder.logits(hidden, "text"), cache


@jax.jit
def score(decoder: Decoder, inputs: TextInputs) -> Any:
    """Logits of every token in one pass."""
    embeddings, deepstack = place_features(decoder, inputs.ids, inputs.features, inputs.slots)
    segments = jax.numpy.arange(inputs.ids.shape[1])[None] < inputs.lengths[:, None]
    out = decoder(
        inputs.ids,
        inputs.positions,
        segments=segments.astype(np.int32),
        embeddings=embeddings,
        deepstack=deepstack,
    )
    return decoder.logits(out.hidden, "text")


@dataclasses.dataclass(frozen=True)
class Frames:
    """A video in memory."""

    frames: np.ndarray
    fps: float

    @property
    def total_frames(self) -> int:
        return len(self.frames)

    def read(self, indices):
        return self.frames[list(indices)]


class Family:
    """A recorded family: the model, and its batch as ours make it."""

    def __init__(self, name: str):
        folder = VECTORS / name
        case = json.loads((folder / "case.json").read_text())
        self.name, self.rows, self.released = name, case["rows"], case["config"]
        self.inputs = load_file(folder / "inputs.safetensors")
        self.recorded = load_file(folder / "outputs.safetensors")
        self.valid = self.recorded["attention_mask"]
        self.lengths = self.valid.sum(axis=1).astype(np.int32)
        self._load(read_header(folder / "weights.safetensors").tensors)
        self._look(case["fps"])
        template = QWEN3VL_CHAT if name == "qwen3_vl" else QWEN25VL_CHAT
        family = name.replace("_", "")
        tokenizer = Tokenizer.from_ranks(names.byte_ranks(), [], family=family, gen_vocab_start=288)
        start = Conversation(tokenizer, dataclasses.replace(template, system=case["system"]))
        self.prompts = [self._ask(start, row) for row in self.rows]

    def _load(self, weights: Any) -> None:
        tensors = {name: read_tensor(info).astype(np.float32) for name, info in weights.items()}
        vision = vision_table.config_from_released(self.released["vision_config"])
        taps = len(self.released["vision_config"].get("deepstack_visual_indexes", ()))
        config = decoder_table.config_from_released(self.released["text_config"], self.name, taps)
        prefix = "model.visual."
        seen = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        rest = {name: x for name, x in tensors.items() if not name.startswith(prefix)}
        build = Qwen25VLVision if isinstance(vision, Qwen25VLVisionConfig) else Qwen3VLVision
        self.tower: Any = load_arrays(
            abstract(lambda: build(vision)), vision_table.rules(vision), seen, self.name
        )
        self.decoder = load_arrays(
            abstract(lambda: Decoder(config)), decoder_table.rules(config), rest, self.name
        )

    def _look(self, fps: float) -> None:
        three = self.name == "qwen3_vl"
        mean, std = (HALF, HALF) if three else (CLIP_MEAN, CLIP_STD)
        pixels = VisionProcessorConfig(patch_size=4, min_pixels=64, max_pixels=4096, mean=mean, std=std)
        videos = VideoProcessorConfig(vision=pixels, rule=Qwen3VLRule() if three else Qwen25VLRule())
        self.images: list[Patches] = [
            image_patches(Image.fromarray(self.inputs[f"image.{i}"]), pixels) for i in range(3)
        ]
        clip = sample_clip(Frames(self.inputs["video.0"], fps), videos)
        self.video: VideoPatches = video_patches(clip, videos)

    def _ask(self, start: Conversation, row: list[Any]) -> list[int]:
        content = [p if isinstance(p, str) else Media.IMAGE if "image" in p else Media.VIDEO for p in row]
        images = [self.images[part["image"]].grid for part in row if "image" in part and part != "image"]
        videos = [TimedGrid(self.video.patches.grid, self.video.timestamps)] * content.count(Media.VIDEO)
        return list(start.ask(content, images, videos).ids)

    @property
    def placeholders(self) -> dict[str, int]:
        return {name: self.released[name] for name in ("image_token_id", "video_token_id")}

    def batch(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Right-padded ids, and which of them are there."""
        ids = np.zeros((len(self.prompts), length), np.int32)
        for i, prompt in enumerate(self.prompts):
            ids[i, : len(prompt)] = prompt
        return ids, np.arange(length)[None] < self.lengths[:, None]

    def positions(self, length: int, seconds: float | None = None) -> RowPositions:
        blocks = Qwen3VLBlocks() if self.name == "qwen3_vl" else Qwen25VLBlocks()
        return multimodal_positions(
            *self.batch(length),
            blocks,
            images=[patches.grid for patches in self.images],
            videos=[self.video.patches.grid],
            seconds=[self.video.seconds_per_grid if seconds is None else seconds],
            **self.placeholders,
        )

    def tower_inputs(self) -> Any:
        shown = [*self.images, self.video.patches]
        values = np.concatenate([patches.values for patches in shown])
        return self.tower.prepare(values, [patches.grid for patches in shown], [PATCHES])

    def text_inputs(self, length: int = PROMPT) -> TextInputs:
        seen = see(self.tower, self.tower_inputs())
        ids, valid = self.batch(length)
        slots = feature_slots(
            ids,
            valid,
            image_tokens=sum(patches.grid.tokens(2) for patches in self.images),
            video_tokens=self.video.patches.grid.tokens(2),
            **self.placeholders,
        )
        return TextInputs(ids, self.lengths, self.positions(length).ids, seen, slots)

    def forced(self) -> TextInputs:
        """The prompts with the 64 forced tokens after them, padded to ``CAPACITY``."""
        prompts, tokens = self.text_inputs(CAPACITY), self.inputs["forced_ids"]
        ids, positions = np.array(prompts.ids), np.array(prompts.positions)
        following = self.positions(CAPACITY).next
        for row, length in enumerate(self.lengths):
            after = slice(length, length + len(tokens))
            ids[row, after] = tokens[:, row]
            positions[:, row, after] = following[row] + np.arange(len(tokens))
        return dataclasses.replace(prompts, ids=ids, positions=positions, lengths=self.lengths + len(tokens))

    def split(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a pass over :meth:`forced` as they are recorded: the prompts' ``[tokens, v]``, the others'."""
        steps = len(self.inputs["forced_ids"])
        prompts = [logits[row, :length] for row, length in enumerate(self.lengths)]
        after = [logits[row, length : length + steps] for row, length in enumerate(self.lengths)]
        return np.concatenate(prompts), np.stack(after, axis=1)

    def error(self, inputs: TextInputs) -> float:
        """The largest difference of a pass over :meth:`forced` from what was recorded."""
        prompts, after = self.split(np.asarray(score(self.decoder, inputs)))
        recorded = self.recorded["prompt_logits"], self.recorded["step_logits"]
        return max(
            np.abs(ours - theirs).max() for ours, theirs in zip((prompts, after), recorded, strict=True)
        )


@functools.cache
def family(name: str) -> Family:
    return Family(name)


@functools.cache
def forced(name: str) -> TextInputs:
    return family(name).forced()


@functools.cache
def prompts(name: str) -> ReadPrompts:
    return run_read(family(name).decoder, family(name).text_inputs(), capacity=CAPACITY)


both_families = pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])


@both_families
def test_prompts_with_pictures_and_videos_have_their_ids_and_positions(name):
    case = family(name)
    placed = case.positions(PROMPT)
    for row, prompt in enumerate(case.prompts):
        valid = case.valid[row]
        np.testing.assert_array_equal(prompt, case.recorded["input_ids"][row, valid])
        theirs = case.recorded["position_ids"][:, row, valid]
        np.testing.assert_array_equal(placed.ids[:, row, : len(prompt)], theirs)
    following = case.recorded["rope_deltas"][:, 0] + case.lengths
    np.testing.assert_array_equal(placed.next, following)


@both_families
def test_one_pass_scores_every_token_as_they_do(name):
    assert family(name).error(forced(name)) < TOLERANCE


@both_families
def test_64_tokens_fed_one_by_one_are_scored_as_they_do_at_every_step(name):
    case = family(name)
    last = np.cumsum(case.lengths) - 1
    first = case.decoder.logits(prompts(name).hidden, "text")
    np.testing.assert_allclose(first, case.recorded["prompt_logits"][last], rtol=0, atol=TOLERANCE)
    cache, tokens = prompts(name).cache, case.inputs["forced_ids"]
    assert len(tokens) == 64
    for step, ids in enumerate(tokens):
        scores, cache = feed(case.decoder, ids, cache)
        theirs = case.recorded["step_logits"][step]
        np.testing.assert_allclose(scores, theirs, rtol=0, atol=TOLERANCE, err_msg=f"step {step}")


@both_families
def test_greedy_answers_are_theirs(name):
    case, theirs = family(name), family(name).recorded["greedy_ids"]
    rows, steps = theirs.shape
    assert min(len(set(row)) for row in theirs.tolist()) >= 20
    one = np.ones(rows, np.float32)
    settings = SamplingSettings(
        guidance=one,
        temperature=0 * one,
        top_k=np.zeros(rows, np.int32),
        top_p=one,
        repetition_penalty=one,
    )
    requests = TextRequests(np.zeros(rows, np.uint32), np.full(rows, steps, np.int32), settings)
    plan = TextPlan(stop_ids=())
    written = run_write(case.decoder, prompts(name), requests, max_tokens=steps, plan=plan)
    np.testing.assert_array_equal(written.tokens, theirs)


def _as_text(name: str) -> TextInputs:
    right = forced(name)
    counted = np.broadcast_to(np.arange(CAPACITY, dtype=np.int32), right.positions.shape)
    return dataclasses.replace(right, positions=np.array(counted))


def _rows_for_columns(name: str) -> TextInputs:
    return dataclasses.replace(forced(name), positions=forced(name).positions[[0, 2, 1]])


def _other_order(name: str) -> TextInputs:
    right = forced(name)
    tokens = np.roll(np.asarray(right.features.tokens), 1, axis=1)
    return dataclasses.replace(right, features=dataclasses.replace(right.features, tokens=tokens))


def _without_deepstack(name: str) -> TextInputs:
    right = forced(name)
    nothing = np.zeros_like(right.features.deepstack)
    return dataclasses.replace(right, features=dataclasses.replace(right.features, deepstack=nothing))


def _without_windows(name: str) -> TextInputs:
    inputs = family(name).tower_inputs()
    seen = see(family(name).tower, dataclasses.replace(inputs, windows=inputs.frames))
    return dataclasses.replace(forced(name), features=seen)


def _one_second_a_step(name: str) -> TextInputs:
    right, case = forced(name), family(name)
    at_one = case.positions(CAPACITY, seconds=1.0).ids
    prompt = np.arange(CAPACITY)[None] < case.lengths[:, None]
    return dataclasses.replace(right, positions=np.where(prompt[None], at_one, right.positions))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("qwen3_vl", _as_text),
        ("qwen3_vl", _rows_for_columns),
        ("qwen3_vl", _other_order),
        ("qwen3_vl", _without_deepstack),
        ("qwen2_5_vl", _as_text),
        ("qwen2_5_vl", _rows_for_columns),
        ("qwen2_5_vl", _other_order),
        ("qwen2_5_vl", _without_windows),
        ("qwen2_5_vl", _one_second_a_step),
    ],
)
def test_the_recorded_scores_tell_a_wrong_input(name, wrong):
    assert family(name).error(wrong(name)) > 100 * TOLERANCE
