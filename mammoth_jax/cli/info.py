"""Say what a checkpoint folder or a training run holds: parts, shapes, parameters and the memory that they take.

Reads configuration and headers only, never the weights.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoth_jax.models.mammoth import Mammoth
    from mammoth_jax.training.trained_model import JointRun

BYTES = {"float32": 4, "bfloat16": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="a released-format or converted folder, or a run (RUN or RUN@STEP)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the summary."""
    from checkpoint_convert.folder import ModelFolder
    from checkpoint_convert.model import model_rules
    from checkpoint_convert.stream import fit
    from mammoth_jax.training.runs import is_run
    from mammoth_jax.training.trained_model import JointRun

    if is_run(args.folder):
        run = JointRun.open(args.folder)
        summary = summarize(args.folder, "run", run.template(), sources(run))
    else:
        folder = ModelFolder.open(args.folder)
        if folder.source is not None:
            fit(folder.model, model_rules(folder.config), folder.source)  # a part that is there is complete
        summary = summarize(args.folder, "converted" if folder.source is None else "released", folder.model)
    print(json.dumps(summary) if args.json else text(summary))
    return 0


def sources(run: "JointRun") -> dict[str, str | None]:
    """Where a run reads what it never trains, and what it began from; None where nobody said."""
    from mammoth_jax.training.origin import read_origin

    init, files = read_origin(run.path).init, run.config.frozen
    gone = init is not None and not _is_there(init)
    tokenizers = {"mammothtok": files.mammothtok or init, "vae": files.vae or init} if gone else None
    words = None if run.words is None else str(run.words)
    return {**(tokenizers or run.tokenizer_paths()), "words": words, "init": init}


def summarize(
    path: Path, kind: str, model: "Mammoth", elsewhere: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Parts with their arrays' shapes and number of parameters, absent parts, totals and memory in bytes.

    Parts that ``elsewhere`` says the place of are not absent: ``vae``, and with ``mammothtok`` all of its parts.
    """
    from checkpoint_convert.model import model_rules
    from mammoth_jax.core.parameters import named_parameters
    from mammoth_jax.models.mammoth import PARTS

    elsewhere = elsewhere or {}
    part_of = {rule.target: rule.part for rule in model_rules(model.config)}
    parts: dict[str, dict[str, Any]] = {}
    for name, param in named_parameters(model).items():
        part = parts.setdefault(part_of[name], {"parameters": 0, "shapes": {}})
        part["parameters"] += int(param.size)
        part["shapes"][name] = list(param.shape)
    total = sum(part["parameters"] for part in parts.values())
    return {
        "folder": str(path),
        "kind": kind,
        "family": model.config.backbone.family,
        "parts": {name: parts[name] for name in PARTS if name in parts},
        "absent": [name for name in PARTS if name not in parts and not elsewhere.get(name.split("_")[0])],
        "elsewhere": dict(elsewhere),
        "parameters": total,
        "memory": {dtype: total * size for dtype, size in BYTES.items()},
    }


def text(summary: dict[str, Any]) -> str:
    """The summary for a person: every array's shape, then one line a part."""
    what = summary["kind"] if summary["kind"] == "run" else f"{summary['kind']} folder"
    lines = [f"{summary['folder']}: {what}, {summary['family']}"]
    for name, part in summary["parts"].items():
        lines += ["", name]
        width = max(map(len, part["shapes"]))
        lines += [
            f"  {array:{width}}  {'×'.join(map(str, shape))}" for array, shape in part["shapes"].items()
        ]
    lines += ["", f"{'part':22}{'parameters':>16}" + "".join(f"{dtype:>14}" for dtype in BYTES)]
    rows = [(name, part["parameters"]) for name, part in summary["parts"].items()]
    for name, count in [*rows, ("total", summary["parameters"])]:
        lines.append(
            f"{name:22}{count:16,}" + "".join(f"{_size(count * size):>14}" for size in BYTES.values())
        )
    lines += [f"{name:22}{'absent':>16}" for name in summary["absent"]]
    for name, place in summary["elsewhere"].items():
        lines.append(f"{name:22}{_place(name, place)}")
    return "\n".join(lines)


def _place(name: str, path: str | None) -> str:
    if path is None:
        return {"words": "of bytes", "init": "random weights"}.get(name, "named nowhere")
    return f"in {path}" + ("" if _is_there(path) else ", which is not there any more")


def _is_there(path: str) -> bool:
    from mammoth_jax.training.runs import split_step

    return split_step(path)[0].exists()


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"
