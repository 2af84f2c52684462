"""Draw pictures from text.

Writes PPPP_II.png (prompt and image number) with all settings in the PNG text field mammoth_jax, and images.jsonl with
a line for each picture.  Image i of a prompt uses seed + i, so each can be drawn again alone.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mammoth_jax.cli.drawing import add_drawing_options, draw_all, load
from mammoth_jax.cli.model_options import add_model_options
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("prompts", nargs="*", metavar="PROMPT")
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help="more prompts, one a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    add_drawing_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draws all pictures and writes them as they are done."""
    prompts = read_prompts(args)
    return draw_all(args, prompts, lambda: load_pipeline(args))


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The prompts of the command line, then those of the file.

    Raises:
      InputError: there is none, or the file cannot be used.
    """
    from mammoth_jax.processing.prompt_file import read_prompt_file

    prompts = [*args.prompts, *(read_prompt_file(args.file) if args.file is not None else [])]
    if not prompts:
        raise InputError("no prompt; give one or more PROMPTs or --prompts FILE")
    return prompts


def load_pipeline(args: argparse.Namespace) -> "TextToImagePipeline":
    """The model that the options name, on their mesh."""
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline

    return load(args, TextToImagePipeline)
