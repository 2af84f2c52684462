"""Write a checkpoint folder in the released format with random weights, tokenizer files included."""

import argparse
from pathlib import Path

from mammoth_jax.core.presets import preset_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("preset", metavar="PRESET", help=f"the architecture: {', '.join(preset_names())}")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must not exist")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the weights (default 0)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")


def run(args: argparse.Namespace) -> int:
    """Writes the folder."""
    from checkpoint_convert.init_checkpoint import init_checkpoint
    from mammoth_jax.models.config import MammothConfig

    init_checkpoint(MammothConfig.from_preset(args.preset), args.out, seed=args.seed, dtype=args.dtype)
    print(f"wrote {args.out}: {args.preset} with random weights, seed {args.seed}, {args.dtype}")
    return 0
