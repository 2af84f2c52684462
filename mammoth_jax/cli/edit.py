"""Edit pictures by instruction.

Writes PPPP_II.png (instruction and image number) with all settings in the PNG text field mammoth_jax, and images.jsonl
with a line for each picture.  Image i of an instruction uses seed + i, so each can be drawn again alone.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mammoth_jax.cli.drawing import add_drawing_options, draw_all, load
from mammoth_jax.cli.model_options import add_model_options

if TYPE_CHECKING:
    from mammoth_jax.pipelines.edit import EditPipeline

CHANNELS = ("vision", "tokens", "latents")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("prompts", nargs="*", metavar="INSTRUCTION")
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help="more of them, one a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    reference = parser.add_argument_group("references")
    reference.add_argument(
        "--image",
        dest="images",
        type=Path,
        action="append",
        required=True,
        metavar="F",
        help="a reference picture; again for more, which all instructions share",
    )
    reference.add_argument(
        "--size-from",
        choices=("first", "last"),
        default="first",
        help="the reference whose size the edit gets without --size (default first)",
    )
    add_reference_options(reference)
    add_drawing_options(parser)
    add_model_options(parser)


def add_reference_options(group: argparse._ActionsContainer) -> None:
    """Declares how references are seen."""
    group.add_argument(
        "--image-guidance", type=float, metavar="G", help="weight of the references' latents; 1 is none"
    )
    for name, what in zip(
        CHANNELS, ("through the vision tower", "as visual tokens", "as latents"), strict=True
    ):
        group.add_argument(
            f"--no-{name}", dest=name, action="store_false", help=f"do not show the references {what}"
        )


def run(args: argparse.Namespace) -> int:
    """Draws all edits and writes them as they are done."""
    from mammoth_jax.cli.generate import read_prompts
    from mammoth_jax.processing.vision import load_picture

    prompts = read_prompts(args)
    pictures = [load_picture(file) for file in args.images]
    used = {f"use_{name}": getattr(args, name) for name in CHANNELS}
    return draw_all(
        args,
        prompts,
        lambda: load_pipeline(args),
        arguments=lambda count: {"image": [pictures] * count, "size_from": args.size_from, **used},
        own={"images": [str(file) for file in args.images], "size_from": args.size_from, **used},
    )


def load_pipeline(args: argparse.Namespace) -> "EditPipeline":
    """The model that the options name, on their mesh."""
    from mammoth_jax.pipelines.edit import EditPipeline

    return load(args, EditPipeline)
