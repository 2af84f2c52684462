"""The options that every command shares which runs a model, and what they mean."""

import argparse
import sys
from pathlib import Path

DEFAULT_PRESET = "nano"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declares ``--model --preset --lora --dtype --mesh --precision --json``."""
    group = parser.add_argument_group("model")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a folder in the released format, one written by to-jax, or a training run (RUN or RUN@STEP)",
    )
    source.add_argument("--preset", metavar="NAME", help="this architecture with random weights instead")
    group.add_argument(
        "--lora",
        type=Path,
        metavar="DIR",
        help="merge these adapters: of a run (RUN or RUN@STEP), or a folder in PEFT's layout",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of weights and activations; float32 on a CPU, else bfloat16",
    )
    add_mesh_option(group, "one device")
    group.add_argument(
        "--precision", choices=("default", "highest"), default="default", help="of float32 matrix products"
    )
    group.add_argument("--json", action="store_true", help="JSON lines on standard output")


def model_source(args: argparse.Namespace) -> dict[str, str]:
    """What says which weights run, for records."""
    source = (
        {"model": str(args.model)} if args.model is not None else {"preset": args.preset or DEFAULT_PRESET}
    )
    return source | ({} if args.lora is None else {"lora": str(args.lora)})


LOOP_SETTINGS = ("decode_weights", "cache")
"""What :func:`add_loop_options` declares; pipelines know them by the same names."""


def add_loop_options(group: argparse._ActionsContainer) -> None:
    """Declares ``--decode-weights --cache``: how a loop that writes tokens holds what each of its steps reads."""
    formats = ("model", "int8")
    group.add_argument(
        "--decode-weights",
        choices=formats,
        help="int8: the decoder's weights at half of bf16's bytes a step; inexact (default: as loaded)",
    )
    group.add_argument(
        "--cache",
        choices=formats,
        help="int8: keys and values at about half of bf16's bytes; inexact (default: as computed)",
    )


def add_mesh_option(parser: argparse._ActionsContainer, default: str = "fsdp over all devices") -> None:
    """Declares ``--mesh``."""
    parser.add_argument(
        "--mesh", metavar="AXIS=N,...", help=f"devices, e.g. data=1,fsdp=4,tensor=2; default: {default}"
    )


def announce_default(args: argparse.Namespace) -> None:
    """Says on stderr that, without ``--model`` and ``--preset``, the model knows nothing yet."""
    if args.model is None and args.preset is None:
        print(
            f"no --model given: using the embedded {DEFAULT_PRESET} model with random weights; "
            "its pictures are noise until a trained model ships",
            file=sys.stderr,
        )
