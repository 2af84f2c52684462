"""Training configurations from YAML: ``extends`` a file beside it, ``model: {extends: PRESET}``, overrides on top."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammoth_jax.core.config import decode, load_yaml, merge, parse_overrides
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.presets import config_folder, load_preset, resolve_extends
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.measured_latents import with_measured_latents
from mammoth_jax.training.origin import tokenizer_paths
from mammoth_jax.training.runs import CONFIG, split_step
from mammoth_jax.training.tokenizer_config import TokenizerTraining

TASKS: Mapping[str, type] = {
    "mammothtok": TokenizerTraining,
    "vae": TokenizerTraining,
    "text": JointTraining,
    "understanding": JointTraining,
    "joint": JointTraining,
}
"""The configuration class of each ``task:``."""


def load_training(
    file: Path,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    init: str | None = None,
) -> Any:
    """The configuration of a run.

    Args:
      file: a YAML file, or the name of a shipped one (``mammothtok``).
      preset: takes the place of the file's ``model:`` section.
      overrides: words ``--key.key value``.
      init: what the run starts from.

    Raises:
      InputError: the file, a preset or a value is not valid, or ``init`` is no model folder.
    """
    data = read_training(file, preset, overrides)
    task = data.get("task")
    if task not in TASKS:
        raise InputError(f"{file}: task {task!r} is not one of {', '.join(sorted(TASKS))}")
    config = decode(TASKS[task], data)
    return with_measured_vae(config, init) if isinstance(config, JointTraining) else config


def run_config(path: Path | str) -> TokenizerTraining | JointTraining:
    """The configuration of a run, ``RUN`` or ``RUN@STEP``, of whatever task.

    Raises:
      InputError: there is none, or it is damaged.
    """
    file = split_step(path)[0] / CONFIG
    data = load_yaml(file)
    task = data.get("task")
    if task not in TASKS:
        raise InputError(f"{file}: task {task!r} is not one of {', '.join(sorted(TASKS))}")
    return decode(TASKS[task], data)


def read_training(file: Path, preset: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The same as plain data, with all that it extends in place, not yet checked.

    Raises:
      InputError: a file cannot be read, or there is no such preset.
    """
    data = _with_bases(_find(file), ())
    if preset is not None:
        data["model"] = load_preset(preset)
    data = merge(data, parse_overrides(overrides))
    if isinstance(data.get("model"), Mapping):
        data["model"] = resolve_extends(data["model"])
    return data


def with_measured_vae(config: JointTraining, init: str | None = None) -> JointTraining:
    """The stage with the shift and scale of latents that belong to its VAE, which may be that of ``init``."""
    vae = config.frozen.vae or tokenizer_paths(config.frozen, init)["vae"]
    if vae is None:
        return config
    return dataclasses.replace(config, model=with_measured_latents(config.model, vae))


def _find(file: Path) -> Path:
    if file.is_file():
        return file
    shipped = config_folder() / "train" / file.with_suffix(".yaml")
    if shipped.is_file():
        return shipped
    names = sorted(str(f.relative_to(shipped.parent)) for f in (config_folder() / "train").rglob("*.yaml"))
    raise InputError(f"no configuration {file}; give a file, or one of the shipped: {', '.join(names)}")


def _with_bases(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A file over the one beside it that its key ``extends`` names, and so on."""
    if file in seen:
        raise InputError(f"{file} extends itself by way of {', '.join(f.name for f in seen)}")
    data = load_yaml(file)
    base = data.pop("extends", None)
    if base is None:
        return data
    return merge(_with_bases(file.parent / f"{base}.yaml", (*seen, file)), data)
