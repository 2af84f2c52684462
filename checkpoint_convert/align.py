"""The Q-Former's released names, relative to its module (``image_embedder`` or ``gen_image_condition_refiner``)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from checkpoint_convert.rules import Kernel, Reshape, Rule, linear, norm
from mammoth_jax.models.align.config import QFormerConfig, Stage

REFINER = "refiner"


def rules(config: QFormerConfig) -> list[Rule]:
    """All tensors of the Q-Former; our side is relative to :class:`QFormer`."""
    layers = range(config.num_layers)
    out = [
        Rule(REFINER, "query", "query", Reshape((1, config.num_queries, config.width))),
        *norm(REFINER, "input_proj.0", "input_norm"),
        *linear(REFINER, "input_proj.1", "input", bias=True),
    ]
    for theirs, ours in {"ln_q1": "self_norm", "ln_q2": "cross_norm", "ln_ffn": "ffn_norm"}.items():
        out += norm(REFINER, f"layers.{{layer}}.{theirs}", f"layers.{ours}", layers=layers)
    for theirs, ours in {"self_attn": "self_attention", "cross_attn": "cross_attention"}.items():
        source, target = f"layers.{{layer}}.{theirs}", f"layers.{ours}"
        out += [
            Rule(REFINER, f"{source}.in_proj_weight", f"{target}.packed.kernel", Kernel(), layers),
            Rule(REFINER, f"{source}.in_proj_bias", f"{target}.packed.bias", Reshape(), layers),
            *linear(REFINER, f"{source}.out_proj", f"{target}.out", bias=True, layers=layers, num_inputs=2),
        ]
    for theirs, ours in {"linear_1": "gate", "linear_3": "up", "linear_2": "down"}.items():
        out += linear(REFINER, f"layers.{{layer}}.ffn.{theirs}", f"layers.ffn.{ours}", layers=layers)
    return out


def config_from_released(
    released: Mapping[str, Any] | None, input_width: int, width: int, stage: Stage
) -> QFormerConfig:
    """From ``gen_image_condition_refiner_config``; widths are those of the backbone and of the output."""
    given = dict(released or {})
    defaults = QFormerConfig(input_width, width, stage)
    return QFormerConfig(
        input_width=input_width,
        width=width,
        stage=stage,
        num_queries=int(given.get("num_queries", defaults.num_queries)),
        num_layers=int(given.get("num_layers", defaults.num_layers)),
        num_heads=given.get("num_heads"),
        norm_eps=float(given.get("norm_eps", defaults.norm_eps)),
    )


def config_to_released(config: QFormerConfig) -> dict[str, Any]:
    """What the released loader reads; a number of heads is stated only where it is not the one that it chooses.

    Inside the DiT the loader takes no other, and refuses such a model rather than run it wrongly.
    """
    out: dict[str, Any] = {
        "num_queries": config.num_queries,
        "num_layers": config.num_layers,
        "dropout": 0.0,
        "norm_eps": config.norm_eps,
    }
    chosen = dataclasses.replace(config, num_heads=None).heads
    return out if config.heads == chosen else {**out, "num_heads": config.num_heads}
