"""AIMv2, as published (``preprocessor.*``, ``trunk.*``): names, and its sizes from the tensors' shapes."""

import re
from collections.abc import Mapping

from checkpoint_convert.rules import Kernel, Reshape, Rule, Shape, linear, norm
from mammoth_jax.models.mammothtok.config import EncoderConfig

POSITIONS = "preprocessor.pos_embed"
"""The learned position table, which only towers of a fixed resolution have."""
_PATCH = "preprocessor.patchifier.proj.weight"
_HEAD_WIDTH = 128


def rules(part: str, size: EncoderConfig) -> list[Rule]:
    """All tensors of a tower of native resolution."""
    layers = range(size.num_layers)
    patch = Kernel(source=(size.width, 3, size.patch_size, size.patch_size))
    block, stack = "trunk.blocks.{layer}", "blocks"
    return [
        Rule(part, _PATCH, "patches.kernel", patch),
        Rule(part, "preprocessor.patchifier.proj.bias", "patches.bias"),
        *norm(part, "preprocessor.patchifier.norm", "patch_norm"),
        *norm(part, f"{block}.norm_1", f"{stack}.norm1", layers=layers),
        *linear(part, f"{block}.attn.qkv", f"{stack}.qkv", layers=layers),
        *linear(part, f"{block}.attn.proj", f"{stack}.out", layers=layers, num_inputs=2),
        *norm(part, f"{block}.norm_2", f"{stack}.norm2", layers=layers),
        *linear(part, f"{block}.mlp.fc1", f"{stack}.mlp.gate", layers=layers),
        *linear(part, f"{block}.mlp.fc3", f"{stack}.mlp.up", layers=layers),
        *linear(part, f"{block}.mlp.fc2", f"{stack}.mlp.down", layers=layers),
        *norm(part, "trunk.post_trunk_norm", "final_norm"),
    ]


def position_rule(part: str, cells: int, width: int) -> Rule:
    """The position table of a tower of a fixed resolution."""
    return Rule(part, POSITIONS, "positions", Reshape((1, cells, width)))


def config_from_shapes(shapes: Mapping[str, Shape]) -> EncoderConfig:
    """Sizes; heads are 128 wide, as in every published tower.

    Raises:
      KeyError: without the tensors that tell the sizes.
    """
    width, _, patch, _ = shapes[_PATCH]
    return EncoderConfig(
        patch_size=patch,
        width=width,
        mlp_width=shapes["trunk.blocks.0.mlp.fc1.weight"][0],
        num_layers=count_layers(shapes, r"trunk\.blocks\.(\d+)\."),
        num_heads=max(width // _HEAD_WIDTH, 1),
    )


def count_layers(names: Mapping[str, Shape], pattern: str) -> int:
    """One more than the largest index at the group of ``pattern``."""
    matches = map(re.compile(pattern).match, names)
    return 1 + max((int(match.group(1)) for match in matches if match), default=-1)
