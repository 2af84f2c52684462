"""Where the shipped configuration files are, in a checkout and in an installed wheel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammoth_jax.core.config import load_yaml, merge
from mammoth_jax.core.errors import InputError

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # the wheel's copy, then the checkout's


def config_folder() -> Path:
    """The folder ``configs`` of this installation."""
    for folder in _FOLDERS:
        if (folder / "model").is_dir():
            return folder
    looked = ", ".join(map(str, _FOLDERS))
    raise InputError(f"the shipped configs are missing: looked in {looked}; reinstall mammoth_jax")


def preset_names() -> list[str]:
    """Names of the model presets, sorted."""
    return sorted(file.stem for file in (config_folder() / "model").glob("*.yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The model preset ``name`` as plain data.

    Raises:
      InputError: no such preset; the message lists those there are.
    """
    file = config_folder() / "model" / f"{name}.yaml"
    if not file.is_file():
        raise InputError(f"unknown preset {name!r}; known presets: {', '.join(preset_names())}")
    return load_yaml(file)


def resolve_extends(data: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a mapping over the preset that its key ``extends`` names, if it has one."""
    rest = {key: value for key, value in data.items() if key != "extends"}
    return merge(load_preset(str(data["extends"])), rest) if "extends" in data else rest
