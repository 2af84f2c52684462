"""``init``: a released-format folder with random weights, tokenizer files included."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_convert.model import model_rules
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.random_arrays import random_arrays
from checkpoint_convert.released_config import config_to_released
from checkpoint_convert.rules import expand
from checkpoint_convert.safetensors_file import Spec
from checkpoint_convert.stream import by_target
from checkpoint_convert.to_torch import released_specs, write_released
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.processing import special_tokens
from mammoth_jax.processing.generation_config import DRAWING, TEXT_TO_IMAGE_FILE
from mammoth_jax.processing.vision import PREPROCESSOR_FILE, VisionProcessorConfig, family_images


def init_checkpoint(
    config: MammothConfig, out_dir: Path | str, seed: int = 0, dtype: str = "float32"
) -> None:
    """Writes a complete folder: weights, configurations and a byte-level tokenizer.

    Args:
      config: the architecture.
      out_dir: a folder that does not exist yet.
      seed: of the weights.
      dtype: ``float32`` or ``bfloat16``.

    Raises:
      InputError: ``out_dir`` exists or cannot be written, or the configuration's token ids leave no room for a text
        vocabulary.
    """
    ranks = placeholder_ranks(config)
    model = abstract(lambda: Mammoth(config), parse_dtype(dtype))
    parameters = named_parameters(model)
    groups = by_target(expand(model_rules(config)), parameters)
    arrays = random_arrays(lambda: Mammoth(config), list(groups), seed)
    with new_folder(out_dir) as folder:
        write_json(folder / "config.json", config_to_released(config, dtype))
        write_tokenizer(folder, config, ranks)
        write_json(folder / PREPROCESSOR_FILE, image_processor(config).to_released())
        released: Mapping[str, Spec] = released_specs(groups, parameters)
        write_released(folder, groups, released, arrays, stage="writing")


def image_processor(config: MammothConfig) -> VisionProcessorConfig:
    """How pictures are cut for the configuration's vision tower."""
    vision = config.backbone.vision
    return family_images(
        config.backbone.family, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    )


def placeholder_ranks(config: MammothConfig) -> dict[bytes, int]:
    """A vocabulary of the size that the configuration asks for: the bytes, then pairs and triples of bytes.

    Raises:
      InputError: the configuration's token ids leave no room for the bytes.
    """
    ranks = dict(special_tokens.byte_ranks())
    backbone = config.backbone
    count = special_tokens.num_text_ranks(backbone.tokenizer_family, backbone.image_token_id)
    longer = (bytes(t) for n in (2, 3) for t in itertools.product(range(256), repeat=n))
    for token in itertools.islice(longer, count - len(ranks)):
        ranks[token] = len(ranks)
    return ranks


def write_tokenizer(
    folder: Path,
    config: MammothConfig,
    ranks: Mapping[bytes, int],
    drawing: Mapping[str, Any] = {},
    temperature: float = 1.0,
) -> None:
    """Writes the release's two tokenizer files and the generation configurations that go with them, with the model's
    own options of ``drawing`` if it has any and the ``temperature`` of its visual tokens.

    Raises:
      InputError: the ids do not fit (see ``special_token_ids``).
    """
    codes = config.mammothtok.codebook_size
    lines = special_tokens.vision_token_lines(codes)
    start = config.backbone.decoder.gen_vocab_start_index
    ids = special_tokens.special_token_ids(config.backbone.tokenizer_family, len(ranks), start, lines)
    special_tokens.write_tokenizer_files(folder, ranks, lines)
    first = ids[special_tokens.visual_token(0)]
    text_to_image = {
        "eol_token_id": ids[special_tokens.END_OF_LINE],
        "visual_token_start_id": first,
        "visual_token_end_id": codes
        if codes <= first
        else first + codes,  # a count where it cannot be taken for an id
        "do_sample": True,
        "temperature": temperature,
        "top_k": min(2048, codes),
        "top_p": 1.0,
    } | ({DRAWING: dict(drawing)} if drawing else {})
    end = {"eos_token_id": ids[special_tokens.IM_END], "pad_token_id": ids[special_tokens.END_OF_TEXT]}
    write_json(folder / TEXT_TO_IMAGE_FILE, text_to_image)
    write_json(folder / "und_generation_config.json", {"max_new_tokens": 2048, **end})


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
