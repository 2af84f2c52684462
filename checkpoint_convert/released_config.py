"""The released ``config.json`` and our configuration, both ways; dispatch on ``model_type``.

Sizes that a released config does not state (MammothTok's) come from our optional key ``gen_tokenizer_config``, else
from the tensors' shapes, else they are the release's.  ``gen_pixels_per_token`` and ``gen_picture_size`` are optional
too (16 and 1024 in the release), and so is ``gen_edit_condition`` (``release``).
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from checkpoint_convert import align, backbone, dit, mammothtok, vae, vision
from checkpoint_convert.model import MAMMOTHTOK
from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.models.config import BackboneConfig, ConditionConfig, EditCondition, Family, MammothConfig
from mammoth_jax.models.mammothtok.config import MammothTokConfig

Shape = tuple[int, ...]
MODEL_TYPE = "mammothmoda2"
_FAMILIES: dict[str, Family] = {"mammothmoda2_qwen3_vl": "qwen3_vl", "mammothmoda2_qwen2_5_vl": "qwen2_5_vl"}
_DEV_CONDITION_LAYERS = (-2, -5, -8, -11, -14, -17)


def config_from_released(data: Mapping[str, Any], shapes: Mapping[str, Shape]) -> MammothConfig:
    """Our configuration of a released checkpoint.

    Args:
      data: its ``config.json``.
      shapes: shapes of its tensors by name, for the sizes that the config does not state.

    Raises:
      InputError: another model type, or a required key is missing.
    """
    kind = data.get("model_type")
    if kind not in _LOADERS:
        raise InputError(
            f"config.json: model_type {kind!r} is not supported; expected one of {sorted(_LOADERS)}"
        )
    try:
        return _LOADERS[kind](data, shapes)
    except KeyError as error:
        raise InputError(
            f"config.json has no key {error}; expected the config of a released {kind} model"
        ) from error


def _mammothmoda2(data: Mapping[str, Any], shapes: Mapping[str, Shape]) -> MammothConfig:
    llm = backbone_config(data["llm_config"])
    width = llm.decoder.hidden_size
    diffusion = dit.config_from_released(data["gen_dit_config"], width)
    refiner = data.get("gen_image_condition_refiner_config")
    if refiner is None:
        raise InputError(
            "config.json: gen_image_condition_refiner_config is missing; a model without it is not supported"
        )
    dev = llm.family == "qwen3_vl"
    return MammothConfig(
        backbone=llm,
        mammothtok=_mammothtok(data, shapes),
        refiner=align.config_from_released(
            refiner,
            input_width=width,
            width=diffusion.hidden_size if dev else width,
            stage="dit" if dev else "llm",
        ),
        dit=diffusion,
        vae=vae.config_from_released(data["gen_vae_config"]),
        condition=ConditionConfig(
            layers=tuple(data.get("gen_condition_layers") or _DEV_CONDITION_LAYERS) if dev else (-1,),
            final_norm=not dev,
            mode=data.get("gen_condition_mode", "text_image" if dev else "image"),
            with_answer_text=bool(data.get("gen_text_condition_with_answer", False)),
            edit_condition=_edit_condition(data.get("gen_edit_condition", "release")),
        ),
        pixels_per_token=int(data.get("gen_pixels_per_token", 16)),
        picture_size=int(data.get("gen_picture_size", 1024)),
    )


def _edit_condition(value: Any) -> EditCondition:
    known: tuple[EditCondition, ...] = get_args(EditCondition)
    if value not in known:
        raise InputError(f"config.json: gen_edit_condition {value!r}: expected one of {sorted(known)}")
    return value


_LOADERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Shape]], MammothConfig]] = {
    MODEL_TYPE: _mammothmoda2
}


def backbone_config(data: Mapping[str, Any]) -> BackboneConfig:
    """The backbone's configuration from ``llm_config`` (or the config of a backbone alone).

    Raises:
      InputError: an unknown ``model_type``.
    """
    kind = data.get("model_type")
    if kind not in _FAMILIES:
        raise InputError(
            f"llm_config: model_type {kind!r} is not supported; expected one of {sorted(_FAMILIES)}"
        )
    family = _FAMILIES[kind]
    tower = vision.config_from_released(data["vision_config"])
    taps = len(tower.deepstack_visual_indexes) if isinstance(tower, Qwen3VLVisionConfig) else 0
    inherited = {
        key: data[key]
        for key in ("extra_gen_vocab", "gen_vocab_size", "gen_vocab_start_index", "moe_type")
        if key in data
    }
    return BackboneConfig(
        family=family,
        decoder=backbone.config_from_released(inherited | dict(data["text_config"]), family, taps),
        vision=tower,
        image_token_id=data["image_token_id"],
        video_token_id=data["video_token_id"],
        vision_start_token_id=data["vision_start_token_id"],
        vision_end_token_id=data["vision_end_token_id"],
    )


def _mammothtok(data: Mapping[str, Any], shapes: Mapping[str, Shape]) -> MammothTokConfig:
    if "gen_tokenizer_config" in data:
        return decode(MammothTokConfig, data["gen_tokenizer_config"], "gen_tokenizer_config")
    mine = {
        name.removeprefix(MAMMOTHTOK): shape for name, shape in shapes.items() if name.startswith(MAMMOTHTOK)
    }
    return mammothtok.config_from_shapes(mine) if mine else MammothTokConfig()


def config_to_released(config: MammothConfig, dtype: str = "float32") -> dict[str, Any]:
    """A ``config.json`` that the released loader reads and that gives ``config`` back."""
    llm = config.backbone
    decoder = llm.decoder
    text = backbone.config_to_released(decoder, llm.family)
    dev = llm.family == "qwen3_vl"
    out: dict[str, Any] = {
        "architectures": ["Mammothmoda2Model"],
        "model_type": MODEL_TYPE,
        "dtype": dtype,
        "llm_config": {
            "model_type": f"mammothmoda2_{llm.family}",
            "extra_gen_vocab": decoder.gen_vocab_size > 0,
            "gen_vocab_size": decoder.gen_vocab_size,
            "gen_vocab_start_index": decoder.gen_vocab_start_index,
            "moe_type": text["moe_type"],
            "text_config": text,
            "vision_config": vision.config_to_released(llm.vision),
            "image_token_id": llm.image_token_id,
            "video_token_id": llm.video_token_id,
            "vision_start_token_id": llm.vision_start_token_id,
            "vision_end_token_id": llm.vision_end_token_id,
            "tie_word_embeddings": False,
        },
        "gen_vae_config": vae.config_to_released(config.vae),
        "gen_dit_config": dit.config_to_released(config.dit),
        "gen_image_condition_refiner_config": align.config_to_released(config.refiner),
        "gen_axes_dim_rope": list(config.dit.axes_dim_rope),
        "gen_axes_lens": list(config.dit.axes_lens),
        "gen_condition_mode": config.condition.mode,
        "gen_text_condition_with_answer": config.condition.with_answer_text,
        "gen_edit_condition": config.condition.edit_condition,
        "gen_tokenizer_config": encode(config.mammothtok),
        "gen_pixels_per_token": config.pixels_per_token,
        "gen_picture_size": config.picture_size,
        "initializer_range": 0.02,
    }
    if not dev:
        out["llm_config"]["hidden_size"] = decoder.hidden_size
    return out | ({"gen_condition_layers": list(config.condition.layers)} if dev else {})
