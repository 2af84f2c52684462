"""Folders that the conversion tests start from: tiny models of both backbones, and plain published parts."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from checkpoint_convert.model import model_rules
from checkpoint_convert.released_config import config_to_released
from checkpoint_convert.rules import expand
from checkpoint_convert.safetensors_file import DTYPES, ShardedWriter, Spec
from checkpoint_convert.stream import by_target
from checkpoint_convert.to_torch import released_specs
from mammoth_jax.core.config import decode, merge
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.core.presets import load_preset
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from tests.tiny_model import CHANGES, tiny_config

_QWEN25_VISION = {
    "type": "Qwen25VLVisionConfig",
    "num_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [1],
    "patch_size": 8,
}


@functools.cache
def tiny(family: str) -> MammothConfig:
    """The tiny model with either backbone."""
    if family == "qwen3_vl":
        return tiny_config()
    data = merge(load_preset("nano"), CHANGES)
    data["backbone"]["family"] = family
    data["backbone"]["vision"] = _QWEN25_VISION
    change = {"qk_norm": False, "qkv_bias": True, "mrope_layout": "chunked", "num_deepstack": 0}
    experts = {"kind": "ffn_attention", "start": 1, "stop": 3}
    data["backbone"]["decoder"] |= {**change, "experts": experts}
    data["refiner"] |= {"stage": "llm"}
    data["condition"] = {"layers": [-1], "final_norm": True, "mode": "image"}
    return decode(MammothConfig, data)


@functools.cache
def released_tensors(config: MammothConfig) -> dict[str, Spec]:
    """Shapes of all released tensors of a configuration."""
    parameters = named_parameters(abstract(lambda: Mammoth(config)))
    return released_specs(by_target(expand(model_rules(config)), parameters), parameters)


def weights(config: MammothConfig, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random released tensors of every part: all distinct, so that no mix-up goes unseen."""
    specs = released_tensors(config)
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s.shape, np.float32).astype(DTYPES[dtype]) for n, s in specs.items()}


def write_tensors(
    folder: Path, tensors: dict[str, np.ndarray], max_bytes: int | None, stem: str = "model"
) -> None:
    """Writes safetensors shards into an existing folder."""
    specs = {name: Spec(x.shape, x.dtype) for name, x in tensors.items()}
    writer = ShardedWriter(folder, specs, max_bytes, stem)
    for name, x in tensors.items():
        writer.write(name, x)
    writer.close()


def write_folder(folder: Path, config: MammothConfig, tensors: dict[str, np.ndarray]) -> Path:
    """A released-format folder of several shards."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_to_released(config) | {"unknown_key": "kept"}))
    (folder / "t2i_generation_config.json").write_text("{}")
    write_tensors(folder, tensors, 100_000)
    return folder


def drop_tensors(folder: Path, prefix: str) -> None:
    """Takes the tensors whose names begin with ``prefix`` out of a released-format folder."""
    tensors = {name: x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    write_tensors(folder, {n: x for n, x in tensors.items() if not n.startswith(prefix)}, 100_000)


def plain_backbone(
    folder: Path, family: str, *, old_names: bool = False, tied: bool = False
) -> dict[str, np.ndarray]:
    """A Hugging Face Qwen-VL folder without experts and generation vocabulary; returns its tensors."""
    config = tiny(family)
    released = config_to_released(config)["llm_config"]
    text = {k: v for k, v in released["text_config"].items() if "gen_vocab" not in k and k != "moe_type"}
    text |= {"model_type": f"{family}_text", "tie_word_embeddings": tied}
    plain = {"model_type": family, "tie_word_embeddings": tied, "vision_config": released["vision_config"]}
    plain |= {k: v for k, v in released.items() if k.endswith("token_id")}
    plain |= text | {"model_type": family} if old_names else {"text_config": text}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(plain))
    tensors = {}
    for name, x in weights(config, "BF16", seed=1).items():
        if not name.startswith("llm_model.") or "gen_" in name or (tied and "lm_head" in name):
            continue
        name = name.removeprefix("llm_model.")
        if old_names:
            name = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        tensors[name] = x
    write_tensors(folder, tensors, 50_000)
    return tensors


def plain_part(
    folder: Path, prefix: str, config_json: dict, stem: str, *, only: str = ""
) -> dict[str, np.ndarray]:
    """A folder of one part in fp32, names relative to ``prefix``; only those that begin with ``only``."""
    found = weights(tiny("qwen3_vl"), "F32", seed=2)
    tensors = {n.removeprefix(prefix): x for n, x in found.items() if n.startswith(prefix + only)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json))
    write_tensors(folder, tensors, None, stem)
    return tensors


def plain_vae(folder: Path) -> dict[str, np.ndarray]:
    """A diffusers VAE folder."""
    config = config_to_released(tiny("qwen3_vl"))["gen_vae_config"]
    return plain_part(folder, "gen_vae.", config, "diffusion_pytorch_model")


def plain_aimv2(folder: Path) -> dict[str, np.ndarray]:
    """A native-resolution AIMv2 folder."""
    encoder = dataclasses.asdict(tiny("qwen3_vl").mammothtok.encoder)
    config = {"model_type": "aimv2", "num_attention_heads": encoder["num_heads"]}
    return plain_part(folder, "gen_tokenizer.image_tokenizer.encoder.", config, "model")
