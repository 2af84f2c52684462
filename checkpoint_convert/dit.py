"""The diffusion transformer's released names, relative to ``gen_transformer.`` (without its ``image_embedder``)."""

from collections.abc import Mapping
from typing import Any

from checkpoint_convert.rules import Rule, linear, norm
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.dit.positions import SequenceAxis

DIT = "dit"
IMAGE_EMBEDDER = "time_caption_embed.image_embedder."
"""Where the Q-Former's tensors are inside the transformer, if it works in the transformer's width."""

_DEFAULTS: dict[str, Any] = {  # of the released constructor, for keys that a config leaves out
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 2304,
    "num_layers": 26,
    "num_refiner_layers": 2,
    "num_attention_heads": 24,
    "num_kv_heads": 8,
    "multiple_of": 256,
    "norm_eps": 1e-5,
    "axes_dim_rope": (32, 32, 32),
    "axes_lens": (300, 512, 512),
    "timestep_scale": 1.0,
}


def rules(config: DiTConfig) -> list[Rule]:
    """All tensors of the transformer; our side is relative to :class:`DiT`."""
    refiners, layers = range(config.num_refiner_layers), range(config.num_layers)
    return [
        *linear(DIT, "x_embedder", "patch_embed", bias=True),
        *linear(DIT, "ref_image_patch_embedder", "reference_embed", bias=True),
        Rule(DIT, "image_index_embedding", "reference_index"),
        *linear(DIT, "time_caption_embed.timestep_embedder.linear_1", "time.fc1", bias=True),
        *linear(DIT, "time_caption_embed.timestep_embedder.linear_2", "time.fc2", bias=True),
        *norm(DIT, "time_caption_embed.caption_embedder.0", "caption.norm"),
        *linear(DIT, "time_caption_embed.caption_embedder.1", "caption.proj", bias=True),
        *linear(DIT, "norm_out.linear_1", "output.modulation", bias=True),
        *linear(DIT, "norm_out.linear_2", "output.proj", bias=True),
        *_block_rules("noise_refiner", "noise_refiner", refiners, modulated=True),
        *_block_rules("ref_image_refiner", "reference_refiner", refiners, modulated=True),
        *_block_rules("context_refiner", "context_refiner", refiners, modulated=False),
        *_block_rules("layers", "layers", layers, modulated=True),
    ]


def _block_rules(source: str, target: str, layers: range, *, modulated: bool) -> list[Rule]:
    theirs = f"{source}.{{layer}}."
    out = norm(DIT, f"{theirs}norm1{'.norm' if modulated else ''}", f"{target}.attention_norm", layers=layers)
    if modulated:
        out += linear(DIT, f"{theirs}norm1.linear", f"{target}.modulation", bias=True, layers=layers)
    names = {"norm2": "attention_out_norm", "ffn_norm1": "ffn_norm", "ffn_norm2": "ffn_out_norm"}
    for name, ours in names.items():
        out += norm(DIT, f"{theirs}{name}", f"{target}.{ours}", layers=layers)
    for name, ours in {"to_q": "query", "to_k": "key", "to_v": "value"}.items():
        out += linear(DIT, f"{theirs}attn.{name}", f"{target}.attention.{ours}", layers=layers)
    out += linear(DIT, f"{theirs}attn.to_out.0", f"{target}.attention.out", layers=layers, num_inputs=2)
    for name, ours in {"norm_q": "query_norm", "norm_k": "key_norm"}.items():
        out += norm(DIT, f"{theirs}attn.{name}", f"{target}.attention.{ours}", layers=layers)
    for name, ours in {"linear_1": "gate", "linear_3": "up", "linear_2": "down"}.items():
        out += linear(DIT, f"{theirs}feed_forward.{name}", f"{target}.ffn.{ours}", layers=layers)
    return out


def config_from_released(released: Mapping[str, Any], condition_width: int) -> DiTConfig:
    """From ``gen_dit_config``; the condition's width is the backbone's, whatever ``text_feat_dim`` says."""
    given = {**_DEFAULTS, **{key: value for key, value in released.items() if value is not None}}
    multiplier = given.get("ffn_dim_multiplier")
    first, second, third = (int(d) for d in given["axes_dim_rope"])
    lengths = tuple(int(n) for n in given["axes_lens"])
    return DiTConfig(
        condition_width=condition_width,
        patch_size=int(given["patch_size"]),
        in_channels=int(given["in_channels"]),
        out_channels=int(given.get("out_channels", given["in_channels"])),
        hidden_size=int(given["hidden_size"]),
        num_layers=int(given["num_layers"]),
        num_refiner_layers=int(given["num_refiner_layers"]),
        num_heads=int(given["num_attention_heads"]),
        num_kv_heads=int(given["num_kv_heads"]),
        multiple_of=int(given["multiple_of"]),
        ffn_dim_multiplier=None if multiplier is None else float(multiplier),
        norm_eps=float(given["norm_eps"]),
        axes_dim_rope=(first, second, third),
        axes_lens=(lengths[0], lengths[1], lengths[2]),
        timestep_scale=float(given["timestep_scale"]),
    )


def config_to_released(config: DiTConfig) -> dict[str, Any]:
    """``gen_dit_config`` as the released loader reads it.

    Raises:
      InputError: the first rope axis holds something that the released code does not put there.
    """
    if not isinstance(config.first_axis, SequenceAxis):
        raise InputError(
            f"dit.first_axis {type(config.first_axis).__name__}: the released code knows SequenceAxis alone; a model "
            "trained with another cannot be written for it"
        )
    return {
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_layers,
        "num_refiner_layers": config.num_refiner_layers,
        "num_attention_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "multiple_of": config.multiple_of,
        "ffn_dim_multiplier": config.ffn_dim_multiplier,
        "norm_eps": config.norm_eps,
        "axes_dim_rope": list(config.axes_dim_rope),
        "axes_lens": list(config.axes_lens),
        "text_feat_dim": config.condition_width,
        "timestep_scale": config.timestep_scale,
    }
