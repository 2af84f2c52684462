"""Show a resolved model configuration as YAML.

A FILE holds what differs from the preset that its key `extends` names.  Any key below can be given as an option,
e.g. --dit.num_layers 4; values are read as YAML.
"""

import argparse
from pathlib import Path

from mammoth_jax.core.config import decode, describe, dump_yaml, load_yaml, merge, parse_overrides
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.presets import load_preset, preset_names, resolve_extends
from mammoth_jax.models.config import MammothConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments; the help lists every key of a model."""
    parser.add_argument("action", choices=("show",))
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a model configuration in YAML")
    parser.add_argument("--preset", metavar="NAME", help=f"one of {', '.join(preset_names())}")
    parser.set_defaults(overrides=[])
    rows = [
        (f"--{key}", kind, f"= {default}" if default else "")
        for key, kind, default in describe(MammothConfig)
    ]
    key_width, kind_width = (max(len(row[i]) for row in rows) for i in range(2))
    keys = "\n".join(
        f"  {key:{key_width}}  {kind:{min(kind_width, 30)}}  {default}".rstrip()
        for key, kind, default in rows
    )
    parser.epilog = f"keys:\n{keys}"


def run(args: argparse.Namespace) -> int:
    """Prints the configuration."""
    print(dump_yaml(resolve(args.file, args.preset, args.overrides)), end="")
    return 0


def resolve(file: Path | None, preset: str | None, overrides: list[str]) -> MammothConfig:
    """The model configuration of a file or a preset, with overrides on top.

    Raises:
      InputError: neither or both are given, or anything in them is not valid.
    """
    if (file is None) == (preset is None):
        raise InputError(f"give either a FILE or --preset NAME; presets: {', '.join(preset_names())}")
    data = load_preset(preset) if file is None else resolve_extends(load_yaml(file))  # type: ignore[arg-type]
    return decode(MammothConfig, merge(data, parse_overrides(overrides)))
