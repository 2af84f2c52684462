"""Draw the curves of a training run as one PNG, a panel for each kind of number.

RUN is a folder that `train` wrote.  Lines that jump from step to step are drawn pale under their moving average.

With --margins: how far a stage that draws is ahead of one that ignores what it is given, each with the bound that it
should hold, and the curves that they compare; status 1 if one does not hold.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a training run")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where to write; default RUN/curves.png")
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="only these numbers, or those that start with NAME/"
    )
    parser.add_argument("--margins", action="store_true", help="print margins, and draw what they compare")


def run(args: argparse.Namespace) -> int:
    """Writes the picture and prints its name."""
    from mammoth_jax.core.files import prepare_output_file, write_whole
    from mammoth_jax.training.curves import curves, draw
    from mammoth_jax.training.metrics import read_metrics

    records = read_metrics(args.run)
    if args.margins:
        return _margins(args, records)
    found = curves(records, args.names)
    if not found:
        raise InputError(f"{args.run}: no numbers to draw yet")
    out = args.out or args.run / "curves.png"
    prepare_output_file(out)
    write_whole(out, lambda path: draw(found, path))
    print(out)
    return 0


def _margins(args: argparse.Namespace, records: Sequence[Mapping[str, Any]]) -> int:
    from mammoth_jax.core.files import prepare_output_file, write_whole
    from mammoth_jax.training.curves import draw_panels
    from mammoth_jax.training.margins import margin_panels, margins

    if args.names:
        raise InputError("--names chooses curves, --margins has its own: give one of them")
    found, panels = margins(records), margin_panels(records)
    out = args.out or args.run / "margins.png"
    if panels:
        prepare_output_file(out)
    for margin in found:
        word = "at most" if margin.below else "at least"
        verdict = "" if margin.holds else "   FALLS SHORT"
        print(f"{margin.name}: {margin.value:.3f} ({word} {margin.bound:g}; {margin.formula}){verdict}")
    if panels:
        write_whole(out, lambda path: draw_panels(panels, path))
        print(out)
    return 0 if all(margin.holds for margin in found) else 1
