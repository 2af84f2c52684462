"""Vision towers: released names (relative to ``model.visual.``) and configurations."""

from collections.abc import Mapping
from typing import Any

from checkpoint_convert.rules import Kernel, Reshape, Rule, Same, linear, norm
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig

VisionConfig = Qwen3VLVisionConfig | Qwen25VLVisionConfig
PART = "vision_tower"


def rules(config: VisionConfig) -> list[Rule]:
    """The table of either tower."""
    shape = (
        config.hidden_size,
        config.in_channels,
        config.temporal_patch_size,
        config.patch_size,
        config.patch_size,
    )
    patch = Rule(PART, "patch_embed.proj.weight", "patch_embed.kernel", Kernel(source=shape))
    specific = _qwen3(config) if isinstance(config, Qwen3VLVisionConfig) else _qwen25(config)
    return [patch, *_attention(config), *specific]


def _attention(config: VisionConfig) -> list[Rule]:
    layers = range(config.num_layers)
    source, target = "blocks.{layer}.attn.", "layers.attention."
    return [
        *linear(PART, source + "qkv", target + "qkv", bias=True, layers=layers),
        *linear(PART, source + "proj", target + "out", bias=True, layers=layers, num_inputs=2),
    ]


def _qwen3(config: Qwen3VLVisionConfig) -> list[Rule]:
    layers = range(config.num_layers)
    table = [
        Rule(PART, "patch_embed.proj.bias", "patch_embed.bias", Reshape()),
        Rule(PART, "pos_embed.weight", "pos_embed", Same()),
        *_merger("merger", "merger", None),
    ]
    if config.deepstack_visual_indexes:
        taps = range(len(config.deepstack_visual_indexes))
        table += _merger("deepstack_merger_list.{layer}", "deepstack_mergers", taps)
    for i in (1, 2):
        table += norm(PART, f"blocks.{{layer}}.norm{i}", f"layers.norm{i}", bias=True, layers=layers)
        table += linear(
            PART, f"blocks.{{layer}}.mlp.linear_fc{i}", f"layers.mlp.fc{i}", bias=True, layers=layers
        )
    return table


def _merger(source: str, target: str, layers: range | None) -> list[Rule]:
    return [
        *norm(PART, f"{source}.norm", f"{target}.norm", bias=True, layers=layers),
        *linear(PART, f"{source}.linear_fc1", f"{target}.mlp.fc1", bias=True, layers=layers),
        *linear(PART, f"{source}.linear_fc2", f"{target}.mlp.fc2", bias=True, layers=layers),
    ]


def _qwen25(config: Qwen25VLVisionConfig) -> list[Rule]:
    layers = range(config.num_layers)
    table = [
        *norm(PART, "merger.ln_q", "merger.norm"),
        *linear(PART, "merger.mlp.0", "merger.mlp.fc1", bias=True),
        *linear(PART, "merger.mlp.2", "merger.mlp.fc2", bias=True),
        *norm(PART, "blocks.{layer}.norm1", "layers.norm1", layers=layers),
        *norm(PART, "blocks.{layer}.norm2", "layers.norm2", layers=layers),
    ]
    for name in ("gate", "up", "down"):
        table += linear(
            PART, f"blocks.{{layer}}.mlp.{name}_proj", f"layers.mlp.{name}", bias=True, layers=layers
        )
    return table


def config_from_released(data: Mapping[str, Any]) -> VisionConfig:
    """The released ``vision_config``; the tower is told by its own keys, since ``model_type`` is the whole
    model's.

    Raises:
      InputError: a key that the tower needs is missing.
    """
    try:
        common = {
            "num_layers": int(data["depth"]),
            "hidden_size": int(data["hidden_size"]),
            "intermediate_size": int(data["intermediate_size"]),
            "num_heads": int(data["num_heads"]),
            "out_hidden_size": int(data["out_hidden_size"]),
            "temporal_patch_size": int(data.get("temporal_patch_size", 2)),
            "spatial_merge_size": int(data.get("spatial_merge_size", 2)),
            "in_channels": int(data.get("in_channels", data.get("in_chans", 3))),
        }
        if "fullatt_block_indexes" in data:
            return Qwen25VLVisionConfig(
                **common,
                patch_size=int(data.get("patch_size", 14)),
                fullatt_block_indexes=tuple(data["fullatt_block_indexes"]),
                window_size=int(data.get("window_size", 112)),
                tokens_per_second=int(data.get("tokens_per_second", 2)),
            )
        return Qwen3VLVisionConfig(
            **common,
            patch_size=int(data.get("patch_size", 16)),
            num_position_embeddings=int(data["num_position_embeddings"]),
            deepstack_visual_indexes=tuple(data.get("deepstack_visual_indexes", ())),
        )
    except KeyError as error:
        raise InputError(
            f"vision_config has no {error}; expected the config of a Qwen3-VL or Qwen2.5-VL tower"
        ) from error


def config_to_released(config: VisionConfig) -> dict[str, Any]:
    """The inverse of :func:`config_from_released`."""
    common: dict[str, Any] = {
        "depth": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_heads": config.num_heads,
        "out_hidden_size": config.out_hidden_size,
        "patch_size": config.patch_size,
        "temporal_patch_size": config.temporal_patch_size,
        "spatial_merge_size": config.spatial_merge_size,
        "in_channels": config.in_channels,
    }
    if isinstance(config, Qwen25VLVisionConfig):
        return common | {
            "model_type": "mammothmoda2_qwen2_5_vl",
            "hidden_act": "silu",
            "fullatt_block_indexes": list(config.fullatt_block_indexes),
            "window_size": config.window_size,
            "tokens_per_second": config.tokens_per_second,
        }
    return common | {
        "model_type": "mammothmoda2_qwen3_vl",
        "hidden_act": "gelu_pytorch_tanh",
        "num_position_embeddings": config.num_position_embeddings,
        "deepstack_visual_indexes": list(config.deepstack_visual_indexes),
    }
