"""Records what transformers' own Qwen3-VL and Qwen2.5-VL compute with small random weights, for tests of our own.

    python scripts/record_backbone_vectors.py tests/vectors/backbone_torch

Needs ``transformers``, ``torch`` and ``torchvision``; nothing of ours.  The README beside the vectors says what is in
them.  Prompts go through the released processors with a byte-level tokenizer, so ids, patches and positions are theirs
too.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record_processor_vectors as recorded  # first: it makes torchvision load
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
"""Ids from 256 on, after the bytes."""
PAD = 256
IDS = {
    f"{name}_token_id": 256 + SPECIALS.index(f"<|{token}|>")
    for name, token in {
        "image": "image_pad",
        "video": "video_pad",
        "vision_start": "vision_start",
        "vision_end": "vision_end",
    }.items()
}
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
FORCED, GREEDY, LEAST_DISTINCT = 64, 48, 24
LEAST_MARGIN = 2e-3
"""Of the best score over the second at every greedy step, so that rounding cannot turn a choice."""
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 288,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
VISION = {
    "depth": 3,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
PIXELS = {"patch_size": 4, "min_pixels": 64, "max_pixels": 4096}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family's classes, its configuration as a released folder has it, and its video."""

    model: Any
    config: Any
    processor: Any
    video_processor: Any
    released: dict[str, Any]
    system: str | None
    colours: dict[str, list[float]]
    frames: tuple[int, int, int]
    fps: float


FAMILIES = {
    "qwen3_vl": Family(
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        recorded.videos3.Qwen3VLVideoProcessor,
        {
            "model_type": "qwen3_vl",
            "text_config": {
                **TEXT,
                "head_dim": 16,
                "attention_bias": False,
                "rope_theta": 1e4,  # small: each frequency turns visibly within so short a prompt
                "rope_scaling": {
                    "mrope_interleaved": True,
                    "mrope_section": [4, 3, 1],
                    "rope_type": "default",
                },
            },
            "vision_config": {
                **VISION,
                "in_channels": 3,
                "hidden_act": "gelu_pytorch_tanh",
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0, 2],
            },
            **IDS,
        },
        None,
        {"image_mean": recorded.HALF, "image_std": recorded.HALF},
        (5, 16, 24),
        1.0,
    ),
    "qwen2_5_vl": Family(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        recorded.videos25.Qwen2VLVideoProcessor,
        {
            "model_type": "qwen2_5_vl",
            "text_config": {
                **TEXT,
                "rope_theta": 1e6,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            },
            "vision_config": {
                **VISION,
                "in_chans": 3,
                "hidden_act": "silu",
                "fullatt_block_indexes": [1],
                "window_size": 16,
                "tokens_per_second": 2,
            },
            **IDS,
        },
        "Look.",
        {},
        # two steps of 2 s in time, 5 tokens wide: what follows begins at the same place whether it is counted from the
        # largest position of all axes, as released, or from those of height and width alone, as transformers 5 does
        (4, 16, 40),
        1.0,
    ),
}


def pictures() -> list[np.ndarray]:
    """A wide one, a tall one that has to be resized, a small one."""
    sizes = ((24, 40), (31, 13), (16, 16))
    return [recorded.picture(height, width, 3, seed) for seed, (height, width) in enumerate(sizes)]


ROWS: list[list[Any]] = [
    ["A", {"image": 0}, "or ", {"image": 1}, "?"],
    [{"video": 0}, "then", {"image": 2}],
    ["Why?"],
]
"""Two pictures; a video and a picture; words alone."""
PLACES = {"image": "<|vision_start|><|image_pad|><|vision_end|>"}


def tokenizer() -> PreTrainedTokenizerFast:
    """One id a byte, then the special tokens."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    letters = [chr(value if value in printable else next(others)) for value in range(256)]
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=SPECIALS[0], padding_side="left")


def process(family: Family, video: np.ndarray) -> dict[str, torch.Tensor]:
    """The left-padded batch, by the family's processor."""
    video_place = (
        "<|video_pad|>" if family.processor is Qwen3VLProcessor else PLACES["image"].replace("image", "video")
    )  # Qwen3-VL's processor writes the borders of each step itself
    words = [
        "".join(
            part if isinstance(part, str) else PLACES["image"] if "image" in part else video_place
            for part in row
        )
        for row in ROWS
    ]
    system = "" if family.system is None else f"<|im_start|>system\n{family.system}<|im_end|>\n"
    images = recorded.images.Qwen2VLImageProcessorPil(**PIXELS, **family.colours)
    videos = family.video_processor(
        patch_size=PIXELS["patch_size"],
        **family.colours,
        size={"shortest_edge": PIXELS["min_pixels"], "longest_edge": PIXELS["max_pixels"]},
        do_sample_frames=True,
        fps=2,
        cap_pixels_per_frame=False,
    )
    return dict(
        family.processor(images, tokenizer(), videos)(
            text=[system + PROMPT.format(text) for text in words],
            images=[Image.fromarray(pixels) for pixels in pictures()],
            videos=[video],
            video_metadata=[VideoMetadata(total_num_frames=len(video), fps=family.fps)],
            padding=True,
            return_tensors="pt",
        )
    )


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random weights, large enough that scores spread; all are exact in bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            value = 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
        elif "embed" in name and "patch" not in name:
            value = noise
        else:
            gain = 2.0 if name == "lm_head.weight" else 1.2
            value = gain * noise / parameter[0].numel() ** 0.5
        parameter.data = value.bfloat16().float()


class Force(LogitsProcessor):
    """Makes generation write the given tokens, then anything."""

    def __init__(self, tokens: torch.Tensor, prompt: int):
        self.tokens = tokens
        self.prompt = prompt

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        at = ids.shape[1] - self.prompt
        if at == len(self.tokens):
            return scores
        return torch.full_like(scores, -torch.inf).scatter(1, self.tokens[at][:, None], 0.0)


def generate(
    model: Any, inputs: dict, count: int, processors: tuple = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[b, count]`` of transformers' own greedy loop with its cache, and raw scores ``[count, b, v]``."""
    out = model.generate(
        **inputs,
        generation_config=GenerationConfig(
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=PAD,
            output_logits=True,
            return_dict_in_generate=True,
        ),
        logits_processor=LogitsProcessorList(processors),
    )
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits)


def whole(model: Any, inputs: dict, forced: torch.Tensor) -> torch.Tensor:
    """Scores ``[b, s + forced, v]`` of one pass without a cache."""
    added = {
        "input_ids": forced.T,
        "attention_mask": torch.ones_like(forced.T),
        "mm_token_type_ids": torch.zeros_like(forced.T),
    }
    longer = {name: torch.cat([inputs[name], more], dim=1) for name, more in added.items()}
    model.model.rope_deltas = None
    return model(**{**inputs, **longer}, use_cache=False).logits


@torch.no_grad()
def record(family: Family, video: np.ndarray) -> dict[str, dict[str, torch.Tensor]]:
    """Weights, inputs and outputs of a family, with the first seed whose greedy answers do not go round in circles."""
    inputs = process(family, video)
    inputs.pop("video_metadata", None)
    config = family.config(**json.loads(json.dumps(family.released)))
    text, expected = config.text_config, family.released["text_config"]
    assert text.rope_parameters["rope_theta"] == expected["rope_theta"]
    assert text.rope_parameters["mrope_section"] == expected["rope_scaling"]["mrope_section"]
    config._attn_implementation = "eager"
    forced = torch.randint(256, (FORCED, len(ROWS)), generator=torch.Generator().manual_seed(1))
    for seed in range(1000):
        model = family.model(config).eval()
        fill(model, seed)
        greedy, scores = generate(model, inputs, GREEDY)
        best = scores.topk(2).values
        distinct = min(len(set(row)) for row in greedy.tolist())
        margin = float((best[..., 0] - best[..., 1]).min())
        if distinct >= LEAST_DISTINCT and margin >= LEAST_MARGIN:
            break
    else:
        raise SystemExit("no seed gives answers of enough different tokens")
    _, steps = generate(model, inputs, FORCED + 1, (Force(forced, inputs["input_ids"].shape[1]),))
    full = whole(model, inputs, forced)
    valid = inputs["attention_mask"].bool()
    error = float((full[:, -FORCED:].transpose(0, 1) - steps[1:]).abs().max())
    print(
        f"{config.model_type}: seed {seed}, {distinct} different tokens, margin {margin:.1e}, scores' deviation "
        f"{float(full[:, -FORCED:].std()):.2f}, cached and whole differ by {error:.1e}, lengths {valid.sum(1).tolist()}"
    )
    assert error < 3e-5
    times = {"second_per_grid_ts": inputs["second_per_grid_ts"]} if "second_per_grid_ts" in inputs else {}
    positions, deltas = model.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"],
        inputs["video_grid_thw"],
        attention_mask=inputs["attention_mask"],
        **times,
    )
    return {
        "weights": {name: x.bfloat16().contiguous() for name, x in model.state_dict().items()},
        "inputs": {
            **{f"image.{i}": torch.from_numpy(pixels) for i, pixels in enumerate(pictures())},
            "video.0": torch.from_numpy(video),
            "forced_ids": forced.int(),
        },
        "outputs": {
            "input_ids": inputs["input_ids"].int(),
            "attention_mask": valid,
            "position_ids": positions.int(),
            "rope_deltas": deltas.int(),
            "prompt_logits": full[:, :-FORCED][valid].contiguous(),
            "step_logits": steps[1:].contiguous(),
            "greedy_ids": greedy.int().contiguous(),
        },
    }


def main() -> None:
    """Writes a folder for each family into the folder that the command line names."""
    for name, family in FAMILIES.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        count, height, width = family.frames
        video = np.stack([recorded.picture(height, width, 3, 10 + i) for i in range(count)])
        for part, tensors in record(family, video).items():
            save_file(tensors, folder / f"{part}.safetensors")
        case = {"config": family.released, "rows": ROWS, "system": family.system, "fps": family.fps}
        (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
