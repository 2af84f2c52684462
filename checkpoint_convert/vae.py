"""The image autoencoder: names and configuration of ``AutoencoderKL``; names are relative to ``gen_vae.``."""

from collections.abc import Mapping
from typing import Any

from checkpoint_convert.residual import res_block, res_stack
from checkpoint_convert.rules import Rule, conv, linear, norm
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.vae.config import VAEConfig

_PART = "vae"


def rules(config: VAEConfig) -> list[Rule]:
    """All tensors of both halves."""
    out: list[Rule] = []
    for half in ("encoder", "decoder"):
        out += conv(_PART, f"{half}.conv_in", f"{half}.conv_in")
        out += norm(_PART, f"{half}.conv_norm_out", f"{half}.norm_out", bias=True)
        out += conv(_PART, f"{half}.conv_out", f"{half}.conv_out")
        out += _mid(half, config.mid_attention)
    out += _levels(config.block_out_channels, config.layers_per_block, "encoder", "down", "downsample")
    out += _levels(config.block_out_channels[::-1], config.layers_per_block + 1, "decoder", "up", "upsample")
    return out


def _mid(half: str, attention: bool) -> list[Rule]:
    theirs, ours = f"{half}.mid_block", f"{half}.mid"
    out = res_block(_PART, f"{theirs}.resnets.0", f"{ours}.first")
    out += res_block(_PART, f"{theirs}.resnets.1", f"{ours}.second")
    if attention:
        out += norm(_PART, f"{theirs}.attentions.0.group_norm", f"{ours}.attention.norm", bias=True)
        for name, here in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "out")):
            out += linear(_PART, f"{theirs}.attentions.0.{name}", f"{ours}.attention.{here}", bias=True)
    return out


def _levels(widths: tuple[int, ...], layers: int, half: str, way: str, change: str) -> list[Rule]:
    out: list[Rule] = []
    for i, (inputs, outputs) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
        theirs, ours = f"{half}.{way}_blocks.{i}", f"{half}.{way}.{i}"
        names = f"{theirs}.resnets", f"{ours}.blocks"
        out += res_stack(
            _PART, *names, inputs=inputs, outputs=outputs, count=layers, shortcut="conv_shortcut"
        )
        if i < len(widths) - 1:
            out += conv(_PART, f"{theirs}.{change}rs.0.conv", f"{ours}.{change}")
    return out


def config_from_released(released: Mapping[str, Any]) -> VAEConfig:
    """The configuration from an ``AutoencoderKL`` dictionary.

    Raises:
      InputError: a variant that the FLUX layout does not have.
    """
    levels = len(released["block_out_channels"])
    fixed = {
        "act_fn": ("silu",),
        "down_block_types": (["DownEncoderBlock2D"] * levels,),
        "up_block_types": (["UpDecoderBlock2D"] * levels,),
        "use_quant_conv": (False,),
        "use_post_quant_conv": (False,),
        "latents_mean": (None,),
        "latents_std": (None,),
    }
    for name, allowed in fixed.items():
        # diffusers takes quant convs where the two keys are not there
        value = released.get(name, True if name.endswith("quant_conv") else allowed[0])
        if value not in allowed:
            raise InputError(
                f"gen_vae_config.{name}={value!r} is not supported; the FLUX layout has {allowed[0]!r}"
            )
    return VAEConfig(
        in_channels=released.get("in_channels", 3),
        out_channels=released.get("out_channels", 3),
        latent_channels=released["latent_channels"],
        block_out_channels=tuple(released["block_out_channels"]),
        layers_per_block=released.get("layers_per_block", 1),
        norm_groups=released.get("norm_num_groups", 32),
        mid_attention=released.get("mid_block_add_attention", True),
        scaling_factor=float(released["scaling_factor"]),
        shift_factor=float(released.get("shift_factor") or 0.0),
    )


def config_to_released(config: VAEConfig) -> dict[str, Any]:
    """The ``AutoencoderKL`` dictionary, as diffusers reads it."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": True,
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.layers_per_block,
        "mid_block_add_attention": config.mid_attention,
        "norm_num_groups": config.norm_groups,
        "out_channels": config.out_channels,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
    }
