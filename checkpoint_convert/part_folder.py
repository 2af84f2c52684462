"""MammothTok or the VAE in a folder of its own, in its published layout: written from live weights, and read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert import mammothtok, vae
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.rules import Rule, expand
from checkpoint_convert.safetensors_file import Spec
from checkpoint_convert.source import FolderSource
from checkpoint_convert.stream import by_target, load_onto
from checkpoint_convert.to_torch import PART_STEMS, part_config, released_specs, write_released
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.models.config import MammothConfig

M = TypeVar("M", bound=nnx.Module)


def save_part(
    module: nnx.Module, config: MammothConfig, part: str, dst: Path | str, dtype: str = "float32"
) -> None:
    """Writes one part's live weights, in a dtype, as ``to-torch --part`` would.

    Raises:
      InputError: ``dst`` exists or cannot be written.
    """
    rules = part_rules(config, part)
    parameters = named_parameters(module)
    groups = by_target(expand(rules), parameters)
    with new_folder(dst) as folder:
        kind = parse_dtype(dtype)
        arrays = ((name, p[...].astype(kind)) for name, p in parameters.items())
        specs = {
            name: Spec(x.shape, np.dtype(kind)) for name, x in released_specs(groups, parameters).items()
        }
        write_released(folder, groups, specs, arrays, stem=PART_STEMS[part], max_bytes=None)
        text = json.dumps(part_config({}, config, part), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")


def load_part(path: Path | str, module: M, config: MammothConfig, part: str, mesh: Mesh) -> M:
    """The (abstract) module with the weights of a part's folder, float32, directly in their shards.

    Raises:
      InputError: a file is missing or corrupt, or the tensors are not those of this part at these sizes.
    """
    return load_onto(module, part_rules(config, part), FolderSource(path), mesh, "float32")


def is_part(path: Path | str, config: MammothConfig, part: str) -> bool:
    """Whether a folder holds tensors of the part under its own names, as no folder of a whole model does.

    Raises:
      InputError: the folder is missing, or holds no safetensors.
    """
    return bool(set(FolderSource(path).specs) & {entry.source for entry in expand(part_rules(config, part))})


def part_rules(config: MammothConfig, part: str) -> Sequence[Rule]:
    """The table of one part, with the names that its folder and its module have."""
    return {
        "mammothtok": lambda: mammothtok.rules(config.mammothtok),
        "vae": lambda: vae.rules(config.vae),
    }[part]()
