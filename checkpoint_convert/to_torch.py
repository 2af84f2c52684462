"""``to-torch``: our arrays as a released-format folder, tensor by tensor.

What is written are the arrays that the model runs with, rearranged: nothing is kept from the checkpoint that
they came from but its side files and, for a converted folder, each tensor's original dtype.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from checkpoint_convert.converted import ConvertedFolder
from checkpoint_convert.folder import ModelFolder, read_json
from checkpoint_convert.model import MAMMOTHTOK, VAE, model_rules
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.released_config import config_to_released
from checkpoint_convert.reported import reported
from checkpoint_convert.rules import Entry, Rule, expand
from checkpoint_convert.safetensors_file import ShardedWriter, Spec
from checkpoint_convert.source import FolderSource
from checkpoint_convert.stream import by_target, fit, held_dtype, read_stack
from checkpoint_convert.to_jax import check_arrays, side_files
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.models.config import MammothConfig

Arrays = Iterable[tuple[str, np.ndarray | jax.Array]]

PART_PREFIXES = {"mammothtok": MAMMOTHTOK, "vae": VAE}
_PART_CONFIGS = {"mammothtok": "gen_tokenizer_config", "vae": "gen_vae_config"}
PART_STEMS = {"mammothtok": "model", "vae": "diffusion_pytorch_model"}


def to_torch(src: Path | str, dst: Path | str, part: str | None = None) -> None:
    """Writes a converted (or released-format) folder in the released format, or one part of it alone.

    Raises:
      InputError: ``src`` does not fit the model, holds nothing of ``part``, or ``dst`` exists or cannot be
        written.
    """
    opened = ModelFolder.open(src)
    prefix = "" if part is None else _prefix(part)
    rules = [rule for rule in model_rules(opened.config) if rule.source.startswith(prefix)]
    if opened.source is None:
        converted = ConvertedFolder.open(src)
        check_arrays(named_parameters(opened.model), converted)
        released: Mapping[str, Spec] = converted.released
        groups = by_target(expand(rules), converted.targets)
        groups = {name: group for name, group in groups.items() if group}
        arrays: Arrays = converted.arrays(groups)
    else:
        fit(opened.model, model_rules(opened.config), opened.source)
        released = opened.source.specs
        groups = by_target(expand(rules), named_parameters(opened.model))
        groups = {name: group for name, group in groups.items() if group}
        arrays = _read_released(opened.model, groups, opened.source)
    if not groups:
        raise InputError(f"{src} holds nothing of {part}; it holds: {', '.join(sorted(opened.model.parts))}")
    with new_folder(dst) as folder:
        if part is None:
            write_released(folder, groups, released, arrays)
            for file in side_files(Path(src)):
                shutil.copyfile(file, folder / file.name)
        else:
            write_released(
                folder, groups, released, arrays, prefix=prefix, stem=PART_STEMS[part], max_bytes=None
            )
            _write_json(
                folder / "config.json", part_config(read_json(Path(src) / "config.json"), opened.config, part)
            )


def _prefix(part: str) -> str:
    if part not in PART_PREFIXES:
        raise InputError(f"unknown part {part!r}; expected one of {', '.join(PART_PREFIXES)}")
    return PART_PREFIXES[part]


def part_config(released: Mapping[str, Any], config: MammothConfig, part: str) -> dict[str, Any]:
    """The configuration of one part: the checkpoint's own where it gives one, else ours in released terms."""
    key = _PART_CONFIGS[part]
    return dict(config_to_released(config).get(key) or {}) | dict(released.get(key) or {})


def _read_released(
    module: nnx.Module, groups: Mapping[str, Sequence[Entry]], source: FolderSource
) -> Iterator[tuple[str, np.ndarray]]:
    parameters = named_parameters(module)
    for name, group in groups.items():
        yield name, read_stack(source, group, tuple(parameters[name].shape), held_dtype(group, source))


def write_released(
    folder: Path,
    groups: Mapping[str, Sequence[Entry]],
    released: Mapping[str, Spec],
    arrays: Arrays,
    *,
    prefix: str = "",
    stem: str = "model",
    max_bytes: int | None = 5 * 10**9,
    stage: str = "to-torch",
) -> None:
    """Writes the released tensors of ``groups`` (our array's name to its entries) as safetensors.

    Args:
      folder: an existing folder.
      groups: what to write.
      released: shape and dtype of each released tensor.
      arrays: those of ours that ``groups`` names, one at a time.
      prefix: taken off the released names.
      stem: file name without its ending.
      max_bytes: size of a shard; None writes one file without an index.
      stage: what to call this in the progress report.
    """
    specs = {e.source.removeprefix(prefix): released[e.source] for group in groups.values() for e in group}
    writer = ShardedWriter(folder, specs, max_bytes, stem)
    for name, array in reported(arrays, len(groups), stage):
        for entry in groups[name]:
            tensor = entry.transform.backward(_host(array, entry.layer)).astype(
                released[entry.source].dtype, copy=False
            )
            writer.write(entry.source.removeprefix(prefix), tensor)
            del tensor
        del array
    writer.close()


def _host(array: np.ndarray | jax.Array, layer: int | None) -> np.ndarray:
    """One layer (or all) in host memory.  A device array is copied first: it keeps the host copy that it hands out."""
    if isinstance(array, np.ndarray):
        return array if layer is None else array[layer]
    return np.asarray(jnp.copy(array) if layer is None else array[layer])


def released_specs(
    groups: Mapping[str, Sequence[Entry]], parameters: Mapping[str, nnx.Param]
) -> dict[str, Spec]:
    """Shape and dtype of every released tensor of a module, in the module's dtypes."""
    return {
        entry.source: Spec(
            tuple(entry.transform.source_shape(entry.layer_shape(tuple(parameters[name].shape)))),
            np.dtype(parameters[name].dtype),
        )
        for name, group in groups.items()
        for entry in group
    }


def save_released(
    module: nnx.Module,
    config: MammothConfig,
    dst: Path | str,
    side: Iterable[Path] = (),
    config_json: Mapping[str, Any] | None = None,
    rules: Iterable[Rule] | None = None,
) -> None:
    """Writes a live module as a released-format folder, in the dtypes that its arrays have.

    Args:
      module: the model (or, with ``rules``, any module).
      config: its configuration.
      dst: a folder that does not exist yet.
      side: files to copy beside the weights (tokenizer, generation configurations).
      config_json: the ``config.json`` to write; by default made from ``config``.
      rules: the table; by default the whole model's.

    Raises:
      InputError: ``dst`` exists or cannot be written.
    """
    parameters = named_parameters(module)
    groups = by_target(expand(model_rules(config) if rules is None else rules), parameters)
    unwritten = [name for name, group in groups.items() if not group]
    if unwritten:
        raise InputError(
            f"no released name for the parameters {', '.join(unwritten)}; extend the conversion table"
        )
    with new_folder(dst) as folder:
        specs = released_specs(groups, parameters)
        write_released(folder, groups, specs, ((name, p[...]) for name, p in parameters.items()))
        for file in side:
            shutil.copyfile(file, folder / file.name)
        _write_json(folder / "config.json", dict(config_json or config_to_released(config)))


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
