"""Look at data before training does: `data check CONFIG` reads samples of every source.

CONFIG is a training configuration, or a file with nothing but `sources:`.  Of each source it says how many samples are
missing, broken, empty or filtered, and how large pictures and texts are.  Exit status 1: a source is worse than its
`bad_input.share` allows.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoth_jax.cli.argument_types import positive
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.data.check import SourceReport
    from mammoth_jax.data.sample_tokens import LayoutTokens

BARS = 24
GEOMETRY = "dev"
"""Whose sizes count where neither the configuration nor the command names a model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("action", choices=("check",))
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="a training configuration, or a list of sources"
    )
    parser.add_argument(
        "--samples", type=positive, default=100, metavar="N", help="of each source (default 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which samples")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="count in this model's tokens (default: the configuration's model and words, else bytes)",
    )
    parser.add_argument("--preset", metavar="NAME", help="this architecture's sizes of pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object a source")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Prints a report a source; 1 if one is not fit."""
    from mammoth_jax.core.config import decode
    from mammoth_jax.data.check import check_sources
    from mammoth_jax.data.task_source import TaskSource
    from mammoth_jax.training.config_file import read_training

    data = read_training(args.config, args.preset, args.overrides)
    found = list(find_sources(data))
    if not found:
        raise InputError(
            f"{args.config}: no sources of tasks in it; list them as sources: [{{form: ..., source: ...}}]"
        )
    given = [(path, decode(TaskSource, entry, path), share) for path, entry, share in found]
    words = args.model or words_folder(data)
    count = token_count(args.model, words, data)
    unit = "bytes" if words is None else "tokens"
    failed = []
    for report in check_sources(given, samples=args.samples, count=count, seed=args.seed):
        print(json.dumps(report.to_json()) if args.json else text(report, unit), flush=True)
        failed += [report.name] if report.failed else []
    if not args.json:
        print(f"{len(given)} sources, {len(failed)} not fit" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def find_sources(data: Any, path: str = "", share: float | None = None) -> Iterator[tuple[str, Any, float]]:
    """Every task source in a configuration: its path, its plain data, and the share of it that may be bad.

    A task source is an item of a list that has a key ``source``.
    """
    from mammoth_jax.core.config import decode
    from mammoth_jax.data.tally import BadInput

    if isinstance(data, Mapping):
        if "bad_input" in data:
            share = decode(BadInput, data["bad_input"], f"{path}.bad_input".lstrip(".")).share
        for key, value in data.items():
            yield from find_sources(value, f"{path}.{key}".lstrip("."), share)
    elif isinstance(data, list):
        for i, value in enumerate(data):
            if isinstance(value, Mapping) and "source" in value:
                yield f"{path}[{i}]", value, BadInput().share if share is None else share
            else:
                yield from find_sources(value, f"{path}[{i}]", share)


def words_folder(data: Mapping[str, Any]) -> Path | None:
    """The folder of tokenizer files that a configuration of joint training names, if it is there."""
    frozen = data.get("frozen")
    words = frozen.get("words") if isinstance(frozen, Mapping) else None
    folder = Path(str(words)).expanduser() if words else None
    return folder if folder is not None and folder.is_dir() else None


def token_count(folder: Path | None, words: Path | None, data: Mapping[str, Any]) -> "LayoutTokens":
    """How tokens are counted: by a model folder's sizes, or a configuration's; in words of a folder, or in bytes."""
    from checkpoint_convert.folder import ModelFolder
    from mammoth_jax.core.config import decode
    from mammoth_jax.core.presets import load_preset
    from mammoth_jax.data.sample_tokens import LayoutTokens
    from mammoth_jax.models.config import MammothConfig
    from mammoth_jax.pipelines.loading import byte_words
    from mammoth_jax.processing.tokenizer import Tokenizer
    from mammoth_jax.processing.vision import family_images
    from mammoth_jax.training.runs import is_run
    from mammoth_jax.training.trained_model import JointRun

    if folder is not None and is_run(folder):
        run = JointRun.open(folder)
        config, words = run.config.model, run.words
    elif folder is not None:
        config = ModelFolder.open(folder, ()).config
    else:
        config = decode(MammothConfig, data.get("model") or load_preset(GEOMETRY), "model")
    backbone, rules = config.backbone, config.picture_rules
    if data.get("max_side"):
        rules = dataclasses.replace(rules, picture_size=data["max_side"])
    tokenizer, _ = byte_words(config)
    if words is not None:
        start = backbone.decoder.gen_vocab_start_index
        tokenizer = Tokenizer.from_folder(words, family=backbone.tokenizer_family, gen_vocab_start=start)
    vision = family_images(
        backbone.family,
        patch_size=backbone.vision.patch_size,
        merge_size=backbone.vision.spatial_merge_size,
        temporal_patch_size=backbone.vision.temporal_patch_size,
    ).within(data.get("max_side"))
    return LayoutTokens(tokenizer, rules, vision)


def text(report: "SourceReport", unit: str) -> str:
    """A report for a person."""
    lines = [f"{report.name}: {report.task}, {report.records:,} records in {report.files:,} files"]
    lines += [f"  bad file {name}: {what}" for name, what in list(report.bad_files.items())[:3]]
    lines += [f"  {report.usable} of {report.read} samples usable"]
    lines += [f"  {n:5} {kind}; the first: {report.examples[kind]}" for kind, n in report.bad.items()]
    lines += [f"  {n:5} filtered: {reason}" for reason, n in sorted(report.filtered.items())]
    lines += histogram("side of a square of a picture's area, pixels", report.sizes)
    lines += histogram(f"text, {unit}", report.text_tokens)
    lines += histogram(f"whole sample, {unit} and pictures' tokens", report.row_tokens)
    if report.usable:
        lines += [f"  {report.mean_row:,.0f} on average"]
    return "\n".join([*lines, f"  not fit: {report.failed}" if report.failed else "  fit", ""])


def histogram(title: str, counts: Mapping[int, int]) -> list[str]:
    """Lines with a bar a class; a class is named by its lower bound."""
    if not counts:
        return []
    most = max(counts.values())
    return [f"  {title}"] + [
        f"  {bound:9,}+ {'#' * max(round(BARS * n / most), 1):{BARS}} {n}" for bound, n in counts.items()
    ]
