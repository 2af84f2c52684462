"""``python -m checkpoint_convert {to-jax,to-torch,assemble}``."""

import argparse
import sys
from collections.abc import Sequence

from mammoth_jax.core.command_parser import CommandParser
from mammoth_jax.core.errors import InputError


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = CommandParser(
        prog="python -m checkpoint_convert",
        description="Released checkpoints to JAX, back, and assembled from parts.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_jax = commands.add_parser("to-jax", help="a released-format folder into a converted folder")
    to_jax.add_argument("src", help="folder with config.json and *.safetensors")
    to_jax.add_argument("dst", help="folder to write; must not exist")
    to_torch = commands.add_parser("to-torch", help="a converted folder into the released format")
    to_torch.add_argument(
        "src", help="converted (or released-format) folder, or a training run: RUN or RUN@STEP"
    )
    to_torch.add_argument("dst", help="folder to write; must not exist")
    to_torch.add_argument(
        "--part", choices=("mammothtok", "vae", "lora"), help="write this part alone; lora: a run's adapters"
    )
    to_torch.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of what a run trained, or of --part (default float32); the rest stays as it was",
    )
    assemble = commands.add_parser("assemble", help="a starting checkpoint from published parts")
    add_assemble_arguments(assemble)
    return parser


def add_assemble_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``assemble``."""
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument("--backbone", required=True, metavar="DIR", help="Qwen3-VL or Qwen2.5-VL folder")
    parser.add_argument("--vae", required=True, metavar="DIR", help="FLUX-layout VAE folder (diffusers)")
    eyes = parser.add_mutually_exclusive_group(required=True)
    eyes.add_argument("--aimv2", metavar="DIR", help="AIMv2 folder: the visual tokenizer's encoder")
    eyes.add_argument(
        "--mammothtok", metavar="DIR", help="MammothTok folder, as to-torch --part mammothtok writes it"
    )
    parser.add_argument(
        "--experts", default=None, metavar="RANGE", help="e.g. ffn-18:36; default: the preset's"
    )
    parser.add_argument(
        "--preset", default=None, help="sizes of the parts that are new (default: by the backbone)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the new weights")


def run(arguments: argparse.Namespace) -> None:
    """Runs one parsed command.

    Raises:
      InputError: anything wrong with what the user gave.
    """
    if arguments.command == "to-jax":
        from checkpoint_convert.to_jax import to_jax

        parts = to_jax(arguments.src, arguments.dst)
        print(f"wrote {arguments.dst}: {', '.join(sorted(parts))}")
    elif arguments.command == "to-torch":
        from mammoth_jax.training.runs import is_run

        if is_run(arguments.src):
            from mammoth_jax.training.export import export_run

            written = export_run(arguments.src, arguments.dst, arguments.part, arguments.dtype or "float32")
            print(f"wrote {arguments.dst}: {written}")
        else:
            from checkpoint_convert.to_torch import to_torch

            if arguments.dtype is not None:
                raise InputError(
                    f"--dtype {arguments.dtype}: {arguments.src} is no training run; its tensors keep their dtypes"
                )
            if arguments.part == "lora":
                raise InputError(
                    f"--part lora: {arguments.src} is no training run, and only runs have adapters; "
                    "give RUN or RUN@STEP"
                )
            to_torch(arguments.src, arguments.dst, arguments.part)
            print(f"wrote {arguments.dst}")
    else:
        from checkpoint_convert.assemble import assemble

        assemble(
            arguments.out,
            backbone=arguments.backbone,
            vae=arguments.vae,
            aimv2=arguments.aimv2,
            mammothtok=arguments.mammothtok,
            experts=arguments.experts,
            preset=arguments.preset,
            seed=arguments.seed,
        )
        print(f"wrote {arguments.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input (one message on stderr), 130 interrupted."""
    try:
        run(build_parser().parse_args(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
