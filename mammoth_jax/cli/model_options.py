"""The options that every command shares which runs a model, and what they mean."""

import argparse
import sys
from pathlib import Path

from mammoth_jax.core import shipped

DEFAULT_PRESET = "nano"
"""What runs, with random weights, where no model is given and none comes with the package."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declares ``--model --preset --lora --dtype --mesh --precision --json``."""
    group = parser.add_argument_group("model")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a folder in the released format, one written by to-jax, or a training run (RUN or RUN@STEP); "
        "default: the model that comes with the package",
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
    own = shipped.shipped_model() if args.model == shipped.FOLDER else None
    if own is not None:
        source = {"model": own.label}
    elif args.model is not None:
        source = {"model": str(args.model)}
    else:
        source = {"preset": args.preset or DEFAULT_PRESET}
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
    """Without ``--model`` and ``--preset``: takes the model that comes with the package, and says so on stderr.

    Where there is none, says that the weights are random.

    Raises:
      InputError: the model is damaged.
    """
    if args.model is not None or args.preset is not None:
        return
    own = shipped.shipped_model()
    if own is None:
        print(
            f"no --model given, and no trained model in this installation: using {DEFAULT_PRESET} with random weights; "
            "its pictures and answers are noise",
            file=sys.stderr,
        )
        return
    args.model = own.folder
    print(
        f"no --model given: using the shipped {own.name} model (weights {own.sha256[:12]}; "
        f"{own.folder / 'README.md'} says what it can do)",
        file=sys.stderr,
    )
