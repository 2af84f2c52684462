"""``assemble``: a starting checkpoint from published parts.

Text decoder and vision tower come from a plain Qwen3-VL or Qwen2.5-VL, generation experts are copies of the text
FFN (and attention, where experts have it), the VAE and the visual tokenizer's encoder (AIMv2) are given, and the rest
starts as its modules declare: generation embedding and head, diffusion transformer, refiner, codebook and decoder.
Everything is copied tensor by tensor from file to file.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_convert import mammothtok as mammothtok_table
from checkpoint_convert.folder import read_json
from checkpoint_convert.init_checkpoint import write_json, write_tokenizer
from checkpoint_convert.model import LLM, MAMMOTHTOK, VAE, model_rules
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.qwen_tokenizer import read_ranks
from checkpoint_convert.released_config import config_from_released, config_to_released
from checkpoint_convert.reported import reported
from checkpoint_convert.rules import Entry, check_parts, expand
from checkpoint_convert.safetensors_file import ShardedWriter, Spec
from checkpoint_convert.source import FolderSource, problems
from checkpoint_convert.stream import by_target
from checkpoint_convert.to_torch import released_specs
from mammoth_jax.core.config import encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, initial_value, named_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.processing.special_tokens import GENERATION_SPECIALS, num_text_ranks, vision_token_lines

_FAMILIES = {"qwen3_vl": "dev", "qwen2_5_vl": "preview"}
"""Plain model types and the preset that gives the sizes of what is new."""

_EXPERT = re.compile(r"\bgen\d*_(mlp|[qkvo]_proj)\b")
_NEW_NAMES = re.compile(rf"^({LLM})?(model\.language_model\.gen_embed_tokens|gen_head)\.")
_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_COPIED = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)


@dataclasses.dataclass(frozen=True)
class Given:
    """A published folder and the released names of its tensors (ours to its own)."""

    source: FolderSource
    names: Mapping[str, str]


def assemble(
    out: Path | str,
    *,
    backbone: Path | str,
    vae: Path | str,
    aimv2: Path | str | None = None,
    mammothtok: Path | str | None = None,
    experts: str | None = None,
    preset: str | None = None,
    seed: int = 0,
) -> None:
    """Writes a released-format folder.

    Args:
      out: a folder that does not exist yet.
      backbone: Qwen3-VL or Qwen2.5-VL in Hugging Face's layout.
      vae: a diffusers ``AutoencoderKL`` of the FLUX kind.
      aimv2: the visual tokenizer's encoder at native resolution; or
      mammothtok: a visual tokenizer, as ``to-torch --part mammothtok`` writes it.
      experts: ``moe_type``, e.g. ``ffn-18:36``; by default the preset's.
      preset: sizes of the parts that are new; by default ``dev`` or ``preview``, by the backbone.
      seed: of the new weights.

    Raises:
      InputError: a folder that cannot be read or does not fit, or ``out`` exists or cannot be written.
    """
    folders = {"backbone": Path(backbone), "vae": Path(vae)}
    if (aimv2 is None) == (mammothtok is None):
        raise InputError("assemble needs exactly one of --aimv2 and --mammothtok")
    eyes = Path(aimv2 if aimv2 is not None else str(mammothtok))
    given = {
        "backbone": _given(folders["backbone"], _backbone_name),
        "vae": _given(folders["vae"], lambda name: VAE + name),
        "eyes": _given(eyes, lambda name: MAMMOTHTOK + ("encoder." if aimv2 is not None else "") + name),
    }
    if aimv2 is not None and f"{MAMMOTHTOK}encoder.preprocessor.pos_embed" in given["eyes"].names:
        raise InputError(
            f"{eyes} is an AIMv2 of a fixed resolution (it has preprocessor.pos_embed); give a native one"
        )
    config = _config(folders, eyes, given["eyes"], experts, preset)
    with new_folder(out) as folder:
        write_json(folder / "config.json", config_to_released(config, _dtype_name(given["backbone"])))
        _write_tokenizer(folder, folders["backbone"], config)
        tied = _is_tied(read_json(folders["backbone"] / "config.json"))
        _write_weights(folder, config, given, seed, tied)


def _given(folder: Path, rename: Any) -> Given:
    source = FolderSource(folder)
    return Given(source, {rename(name): name for name in source.specs})


def _backbone_name(name: str) -> str:
    """Released name of a backbone tensor; older folders have no ``model.`` before ``visual`` or no language model."""
    if name.startswith("visual."):
        name = f"model.{name}"
    elif name.startswith("model.") and not name.startswith(("model.language_model.", "model.visual.")):
        name = f"model.language_model.{name.removeprefix('model.')}"
    return LLM + name


def _dtype_name(given: Given) -> str:
    return str(given.source.specs[next(iter(given.names.values()))].dtype)


def _config(
    folders: Mapping[str, Path], eyes: Path, encoder: Given, experts: str | None, preset: str | None
) -> MammothConfig:
    """The preset's configuration with the published parts' sizes, by way of the released form."""
    plain = read_json(folders["backbone"] / "config.json")
    kind = plain.get("model_type")
    if kind not in _FAMILIES:
        raise InputError(
            f"{folders['backbone']}: model_type {kind!r} is not a backbone; expected one of {sorted(_FAMILIES)}"
        )
    start = MammothConfig.from_preset(preset or _FAMILIES[kind])
    released = config_to_released(start)
    released["llm_config"] = _llm_config(plain, kind, released["llm_config"], experts)
    text = released["llm_config"]["text_config"]
    released["gen_vae_config"] = read_json(folders["vae"] / "config.json")
    channels = released["gen_vae_config"].get("latent_channels", start.vae.latent_channels)
    sizes = {"in_channels": channels, "out_channels": channels, "text_feat_dim": text.get("hidden_size")}
    released["gen_dit_config"] = {**released["gen_dit_config"], **sizes}
    released["gen_tokenizer_config"] = _mammothtok_config(start, eyes, encoder)
    if kind == "qwen3_vl":
        depth = int(text["num_hidden_layers"])
        released["gen_condition_layers"] = [i for i in start.condition.layers if -i <= depth + 1] or [-1]
    first = released["llm_config"]["gen_vocab_start_index"]
    beyond = {key: released["llm_config"][key] for key in _IDS if released["llm_config"][key] >= first}
    if beyond:
        raise InputError(
            f"{folders['backbone']}: {beyond} are beyond the first generation id {first} of this preset; "
            "choose a --preset for this backbone's vocabulary"
        )
    return config_from_released(released, {})


def _llm_config(
    plain: Mapping[str, Any], kind: str, preset: Mapping[str, Any], experts: str | None
) -> dict[str, Any]:
    """``llm_config`` of a plain folder; older Qwen2.5-VL folders keep the text settings at the top."""
    flat = {key: value for key, value in plain.items() if key not in ("vision_config", "text_config", *_IDS)}
    text = dict(plain["text_config"]) if "text_config" in plain else flat
    added = {
        "extra_gen_vocab": True,
        "gen_vocab_size": preset["gen_vocab_size"],
        "gen_vocab_start_index": preset["gen_vocab_start_index"],
        "moe_type": experts if experts is not None else preset["moe_type"],
    }
    if "vision_config" not in plain:
        raise InputError(
            f"the backbone's config.json has no vision_config; expected a {kind} model with its tower"
        )
    vision = dict(plain["vision_config"])
    if kind == "qwen2_5_vl":
        vision.setdefault("fullatt_block_indexes", [7, 15, 23, 31])
    text |= {"model_type": f"mammothmoda2_{kind}_text", "tie_word_embeddings": False}
    return {
        "model_type": f"mammothmoda2_{kind}",
        **added,
        "text_config": text | added,
        "vision_config": vision,
        **{key: plain.get(key, preset[key]) for key in _IDS},
        "tie_word_embeddings": False,
        "hidden_size": text.get("hidden_size"),
    }


def _mammothtok_config(start: MammothConfig, eyes: Path, given: Given) -> dict[str, Any]:
    shapes = {
        name.removeprefix(MAMMOTHTOK): given.source.specs[theirs].shape
        for name, theirs in given.names.items()
    }
    own = read_json(eyes / "config.json") if (eyes / "config.json").is_file() else {}
    if "codebook_size" in own:
        return own
    found = mammothtok_table.config_from_shapes(shapes)
    encoder = found.encoder
    if "num_attention_heads" in own:
        encoder = dataclasses.replace(encoder, num_heads=int(own["num_attention_heads"]))
    if any(not name.startswith("encoder.") for name in shapes):
        return encode(dataclasses.replace(found, encoder=encoder))
    return encode(dataclasses.replace(start.mammothtok, encoder=encoder))


def _write_tokenizer(folder: Path, backbone: Path, config: MammothConfig) -> None:
    """The release's tokenizer files from the backbone's vocabulary, where the folder has one."""
    for name in _COPIED:
        if (backbone / name).is_file():
            (folder / name).write_bytes((backbone / name).read_bytes())
    ranks = read_ranks(backbone)
    if ranks is None:
        return
    expected = num_text_ranks(config.backbone.tokenizer_family, config.backbone.image_token_id)
    if len(ranks) != expected:
        raise InputError(
            f"{backbone}: the vocabulary has {len(ranks)} text tokens, but image_token_id "
            f"{config.backbone.image_token_id} of config.json means {expected}; they are of two models"
        )
    room = config.backbone.decoder.gen_vocab_size - len(GENERATION_SPECIALS)
    if len(vision_token_lines(config.mammothtok.codebook_size)) > room:
        raise InputError(
            f"gen_vocab_size {config.backbone.decoder.gen_vocab_size} has no room for "
            f"{config.mammothtok.codebook_size} visual tokens; choose a --preset with more"
        )
    write_tokenizer(folder, config, ranks)


def _is_tied(plain: Mapping[str, Any]) -> bool:
    text = plain.get("text_config") or {}
    return bool(plain.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False))


def _write_weights(
    folder: Path, config: MammothConfig, given: Mapping[str, Given], seed: int, tied: bool
) -> None:
    parameters = named_parameters(abstract(lambda: Mammoth(config)))
    entries = expand(model_rules(config))
    groups = by_target(entries, parameters)
    wanted = released_specs(groups, parameters)
    origin = {name: (g.source, theirs) for g in given.values() for name, theirs in g.names.items()}
    _copy_head_and_experts(entries, origin, tied)
    new_dtype = given["backbone"].source.specs[next(iter(given["backbone"].names.values()))].dtype
    specs = {
        name: Spec(source.specs[theirs].shape, source.specs[theirs].dtype)
        for name, (source, theirs) in origin.items()
    }
    whole = {"text_decoder", "vision_tower", "vae"}
    for entry in entries:
        if entry.source not in specs and not _must_be_given(entry, whole, given["eyes"]):
            specs[entry.source] = Spec(wanted[entry.source].shape, new_dtype)
    check_parts(
        entries,
        {name: spec.shape for name, spec in specs.items()},
        {name: tuple(p.shape) for name, p in parameters.items()},
        " + ".join(g.source.where for g in given.values()),
        [line for g in given.values() for line in problems(g.source)],
    )
    ordered = {entry.source: specs[entry.source] for group in groups.values() for entry in group}
    writer = ShardedWriter(folder, ordered)
    for name, group in reported(groups.items(), len(groups), "assembling"):
        _write_group(
            writer, group, origin, ordered, lambda name=name: initial_value(name, parameters[name], seed)
        )
    writer.close()


def _write_group(
    writer: ShardedWriter,
    group: Sequence[Entry],
    origin: Mapping[str, tuple[FolderSource, str]],
    specs: Mapping[str, Spec],
    make: Any,
) -> None:
    """Copies what is given; makes the array once for what is new."""
    fresh: np.ndarray | None = None
    for entry in group:
        if entry.source in origin:
            source, theirs = origin[entry.source]
            writer.write(entry.source, source.read(theirs))
            continue
        fresh = make() if fresh is None else fresh
        assert fresh is not None
        tensor = entry.transform.backward(fresh if entry.layer is None else fresh[entry.layer])
        writer.write(entry.source, tensor.astype(specs[entry.source].dtype))


def _copy_head_and_experts(
    entries: Sequence[Entry], origin: dict[str, tuple[FolderSource, str]], tied: bool
) -> None:
    """Adds to ``origin``: a tied output head from the embedding, experts from the text weights of their layer."""
    head, embedding = f"{LLM}lm_head.weight", f"{LLM}model.language_model.embed_tokens.weight"
    if tied and head not in origin and embedding in origin:
        origin[head] = origin[embedding]
    for entry in entries:
        text = _EXPERT.sub(r"\1", entry.source)
        if entry.part == "generation_experts" and text != entry.source and text in origin:
            origin[entry.source] = origin[text]


def _must_be_given(entry: Entry, whole: set[str], eyes: Given) -> bool:
    """Whether a tensor may not be made anew: published parts are complete, experts have a text FFN to copy."""
    if entry.part == "generation_experts":
        return not _NEW_NAMES.match(entry.source)
    if entry.part == "mammothtok_encoder":
        return (
            entry.source.startswith(f"{MAMMOTHTOK}encoder.") or f"{MAMMOTHTOK}quant_conv.weight" in eyes.names
        )
    if entry.part.startswith("mammothtok_"):
        prefix = entry.source.removeprefix(MAMMOTHTOK).split(".")[0]
        return any(name.removeprefix(MAMMOTHTOK).split(".")[0] == prefix for name in eyes.names)
    return entry.part in whole
