"""Values on the command line: sizes, ranges; each refuses what it cannot read in one line."""

from argparse import ArgumentParser, ArgumentTypeError


def size(text: str) -> tuple[int, int]:
    """``"640x480"`` as (width, height)."""
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT with positive numbers, e.g. 1024x768")
    return int(width), int(height)


def fraction_range(text: str) -> tuple[float, float]:
    """``"0,0.5"`` as (0.0, 0.5): an ordered pair of fractions."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not A,B with two numbers, e.g. 0,0.8") from None
    if not 0 <= low <= high <= 1:
        raise ArgumentTypeError(f"{text!r}: expected 0 <= A <= B <= 1")
    return low, high


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def add_rules_option(parser: ArgumentParser) -> None:
    """Declares ``--rules``: which mesh axes divide which dimensions (``core.sharding.ShardingRules``)."""
    parser.add_argument(
        "--rules",
        metavar="NAME=AXIS+...,...",
        help="what the mesh axes divide: length=tensor also divides rows' tokens between layers, embed=fsdp+data "
        "weights over both axes, state=data masters and moments over one more; default: the configuration's "
        "run.rules, else data and fsdp divide rows, fsdp weights, tensor heads and widths",
    )
