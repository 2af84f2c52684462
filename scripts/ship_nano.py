"""Put the model of a finished recipe into the package, where every command without --model finds it.

    scripts/train_nano.sh runs
    mammoth-jax eval synthetic --model runs/nano_model --out runs/scores
    mammoth-jax eval synthetic --model runs/nano_model --out runs/scores_ar --tasks drawing --mode ar
    python scripts/ship_nano.py runs --scores runs/scores runs/scores_ar --limits limits.md

Checks that RUNS/nano_model is whole, fits the architecture tensor by tensor, is finite and takes at most 25 MB; copies
it, with a model card (README.md) and shipped.json beside it.  The card is written from what the runs of the stages say
of themselves.
"""

import argparse
import dataclasses
import datetime
import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.new_folder import new_folder
from mammoth_jax import __version__
from mammoth_jax.cli.eval_synthetic import heading
from mammoth_jax.core.config import load_yaml
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import fingerprint, named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.core.shipped import FACTS, FOLDER
from mammoth_jax.evals.synthetic.scores import table
from mammoth_jax.models.mammoth import PARTS
from mammoth_jax.pipelines.loading import load_model
from mammoth_jax.training.metrics import FILE, read_metrics

LIMIT = 25 * 10**6  # bytes of the folder
STAGES = ("vae", "mammothtok", "text", "understanding", "pre_stage1", "layouts", "pre_stage2", "sft")
CARD = "README.md"
ABOUT = """\
# nano: the model that comes with mammoth_jax

MammothModa2's architecture at {parameters:,} parameters ({megabytes:.1f} MB, {dtypes}), trained from nothing by
`scripts/train_nano.sh`. It draws 64x64 pictures, changes them by instruction and answers questions about them, in
English and Chinese, in one small world: coloured shapes, short words and numbers on plain, shaded or textured
backgrounds. A folder in the released format; each load goes through the converter.

## Data

`mammoth_jax/data/synthetic`, drawn by programs while training: scenes, captions, edits, questions, riddles and texts of
the split `train`. No picture and no text of anybody else. Scores and held-out losses are of the split `heldout`, whose
every scene shows a combination of colour, shape and place that `train` never does.
"""
LIMITS = """\
It knows nothing outside this world: no photographs, no other words, no other sizes than it was trained at. Letters
suffer from 8x8 pixels a visual token. Its texts are those of the world's templates.
"""


def check(folder: Path) -> dict[str, Any]:
    """What the card says of the weights.

    Raises:
      InputError: the folder is no model, lacks a part, holds numbers that are not finite, or is too large.
    """
    opened = ModelFolder.open(folder)
    if opened.source is None:
        raise InputError(f"{folder} is a converted folder; ship one in the released format (to-torch)")
    missing = [part for part in PARTS if part not in opened.model.parts]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}; the shipped model has every part")
    size = sum(file.stat().st_size for file in files(folder))
    if size > LIMIT:
        raise InputError(
            f"{folder} takes {size / 1e6:.1f} MB; at most {LIMIT / 1e6:.0f} are shipped: write it with --dtype bfloat16"
        )
    weights = named_parameters(load_model(folder).model)
    broken = [name for name, x in weights.items() if not np.isfinite(np.asarray(x[...], np.float32)).all()]
    if broken:
        raise InputError(f"{folder}: not finite: {', '.join(broken[:5])}")
    return {
        "parameters": sum(int(x.size) for x in weights.values()),
        "bytes": size,
        "dtypes": sorted({str(spec.dtype) for spec in opened.source.specs.values()}),
        "sha256": digest(folder),
    }


def files(folder: Path) -> list[Path]:
    """What is copied: the folder's own files, but for an older card."""
    return sorted(f for f in folder.iterdir() if f.is_file() and f.name not in (CARD, FACTS))


def digest(folder: Path) -> str:
    """SHA-256 of the weights."""
    whole = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        whole.update(file.read_bytes())
    return whole.hexdigest()


@dataclasses.dataclass(frozen=True)
class Hours:
    """Time of a run by its log; ``exact`` where every step's was logged, else made up from the steps that were."""

    wall: float
    processor: float | None
    exact: bool


def hours(records: Sequence[Mapping[str, Any]]) -> Hours:
    """The times of a run.

    Lines with ``seconds/processor`` hold all seconds since the line before; older ones those of one step.
    """
    wall, processor, exact, before = 0.0, 0.0, True, 0
    for record in records:
        parts = {n.removeprefix("seconds/"): x for n, x in record.items() if n.startswith("seconds/")}
        if not parts:
            continue  # saved: counts to the next line
        processor += parts.pop("processor", 0.0)
        if "seconds/processor" in record:
            wall += sum(parts.values())
        else:
            exact = False
            once = parts.pop("evaluation", 0.0) + parts.pop("checkpoint", 0.0)
            wall += once + sum(parts.values()) * (record["step"] - before)
        before = record["step"]
    return Hours(wall / 3600, processor / 3600 if processor else None, exact)


def stage_row(run: Path) -> list[str]:
    """A stage as the card's table has it; beside finished weights, ``record`` holds what their run said of itself."""
    record = run / "record" if (run / "record").is_dir() else run
    if not run.exists():
        return [run.name.removeprefix("nano_"), *("" for _ in range(5)), "not run"]
    if not (record / FILE).is_file():
        return [run.name.removeprefix("nano_"), *("" for _ in range(5)), "weights that were there"]
    config, records = load_yaml(record / "config.yaml"), read_metrics(record)
    if not records:
        return [run.name.removeprefix("nano_"), *("" for _ in range(5)), "begun, nothing logged"]
    settings, time, steps = config["run"], hours(records), records[-1]["step"]
    rates = [f"{g['name']} {g['schedule']['learning_rate']:g}" for g in config["optimizer"]["groups"]]
    packing = config["data"].get("packing")
    rows = f"{settings['batch_size']} " + ("pictures" if packing is None else f"rows of {packing['tokens']}")
    evaluated: dict[str, float] = {}
    for record in records:
        found = {n.removeprefix("evaluation/"): x for n, x in record.items() if n.startswith("evaluation/")}
        evaluated = found or evaluated
    shown = ("psnr", "ssim", "ntp_text", "ntp_visual", "ntp_image", "flow")
    return [
        run.name.removeprefix("nano_"),
        f"{steps:,}" + ("" if steps == settings["steps"] else f" of {settings['steps']:,}"),
        rows,
        ", ".join(rates),
        str(settings["seed"]),
        f"{'' if time.exact else 'about '}{time.wall:.2f}"
        + ("" if time.processor is None else f" ({time.processor:.2f})"),
        ", ".join(f"{name} {evaluated[name]:.3f}" for name in shown if name in evaluated),
    ]


def scores_section(folder: Path, weights_in: Callable[[str], str]) -> str:
    """Tables of a folder of ``eval synthetic`` under the settings that it records.

    ``weights_in`` gives the fingerprint of the shipped weights in a dtype.

    Raises:
      InputError: it holds no finished scores, or those of other weights.
    """
    try:
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        settings, finished = record["settings"], record["finished"]
        dtype, weights = settings["dtype"], settings["weights"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--scores {folder}: {error}; expected a finished folder of eval synthetic"
        ) from error
    if finished is None:
        raise InputError(f"--scores {folder}: its run has not finished; the same command of eval goes on")
    if weights != weights_in(dtype):
        raise InputError(
            f"--scores {folder}: of other weights ({settings.get('model')}: {weights}, not {weights_in(dtype)}); "
            "evaluate RUNS/nano_model"
        )
    said = heading(settings).split("\n\n", 1)[1].removesuffix("; `run.json` has all settings.") + "."
    return table(scores, said).replace("\n## ", "\n### ").rstrip("\n") + "\n"


def card(runs: Path, facts: Mapping[str, Any], scores: Sequence[Path], limits: str) -> str:
    """The model card; ``scores`` are folders of ``eval synthetic``."""

    @functools.cache
    def weights_in(dtype: str) -> str:
        return fingerprint(load_model(runs / "nano_model", dtype=parse_dtype(dtype)).model)

    about = {"megabytes": facts["bytes"] / 1e6, "dtypes": ", ".join(facts["dtypes"])}
    head = ("stage", "steps", "a step", "rates", "seed", "hours (of a processor)", "held-out")
    rows = [head, ["---"] * len(head), *(stage_row(runs / f"nano_{stage}") for stage in STAGES)]
    lines = [
        ABOUT.format(**{**facts, **about}),
        "## Recipe",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "Hours are those of the runs' own logs, on a machine whose cores others used too.",
        f"Shipped {facts['date']} from commit {facts['commit']}, mammoth_jax {facts['version']}, by",
        "",
        "    scripts/train_nano.sh runs",
        "    python scripts/ship_nano.py runs",
        "",
        f"SHA-256 of the weights: {facts['sha256']}",
        "",
    ]
    lines += ["## Scores", "", "Of `mammoth-jax eval synthetic` (`mammoth_jax/evals/README.md`).", ""]
    lines += [scores_section(folder, weights_in) for folder in scores] or ["Not measured yet.", ""]
    return "\n".join([*lines, "## Limits", "", limits.strip(), ""])


def ship(
    runs: Path,
    into: Path,
    scores: Sequence[Path],
    limits: str,
    commit: str,
) -> dict[str, Any]:
    """Checks, copies and writes the card; the facts.

    Raises:
      InputError: as :func:`check`; the model that is in place then stays.
    """
    model = runs / "nano_model"
    facts = {
        "name": "nano",
        **check(model),
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "version": __version__,
    }
    fresh = into.with_name(f"{into.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with new_folder(fresh) as folder:
        for file in files(model):
            shutil.copyfile(file, folder / file.name)
        (folder / CARD).write_text(card(runs, facts, scores, limits), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    old = into.with_name(f"{into.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if into.exists():
        into.rename(old)
    fresh.rename(into)
    shutil.rmtree(old, ignore_errors=True)
    return facts


def head() -> str:
    """The checkout's commit."""
    git = ["git", "-C", str(Path(__file__).parent)]
    found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    )
    return (found.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


def main() -> int:
    """Ships, and says what is left to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="the recipe's folder")
    parser.add_argument("--scores", type=Path, nargs="+", default=[], metavar="DIR", help="of eval synthetic")
    parser.add_argument("--limits", type=Path, metavar="FILE", help="more for the card's section on limits")
    parser.add_argument("--commit", help="that made the model (default: the checkout's)")
    parser.add_argument("--into", type=Path, default=FOLDER, help="default: the package's place for it")
    args = parser.parse_args()
    try:
        more = "" if args.limits is None else "\n" + args.limits.read_text(encoding="utf-8")
        facts = ship(args.runs, args.into, args.scores, LIMITS + more, args.commit or head())
    except (InputError, OSError, UnicodeDecodeError) as error:
        print(f"ship_nano: {error}", file=sys.stderr)
        return 2
    print(f"{args.into}: {facts['bytes'] / 1e6:.1f} MB, {facts['parameters']:,} parameters")
    if args.into == FOLDER:
        print(
            "A recipe that is to start from its tokenizers:\n"
            f"  python -m checkpoint_convert to-torch {FOLDER} runs/nano_mammothtok --part mammothtok\n"
            f"  python -m checkpoint_convert to-torch {FOLDER} runs/nano_vae --part vae"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
