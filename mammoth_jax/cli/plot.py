"""Draw the curves of a training run as one PNG, a panel for each kind of number.

RUN is a folder that `train` wrote.  Lines that jump from step to step are drawn pale under their moving average.
"""

import argparse
from pathlib import Path

from mammoth_jax.core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a training run")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where to write; default RUN/curves.png")
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="only these numbers, or those that start with NAME/"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the picture and prints its name."""
    from mammoth_jax.core.files import write_whole
    from mammoth_jax.training.curves import curves, draw
    from mammoth_jax.training.metrics import read_metrics

    found = curves(read_metrics(args.run), args.names)
    if not found:
        raise InputError(f"{args.run}: no numbers to draw yet")
    out = args.out or args.run / "curves.png"
    write_whole(out, lambda path: draw(found, path))
    print(out)
    return 0
