"""The paper's ablations in the small world: equal budgets, several seeds, mean and spread beside chance.

    python scripts/ablations.py --runs runs --out runs/ablations --steps 1000 --seeds 0 1 2 --minutes 150

Arms start from the stages of ``scripts/train_nano.sh`` in RUNS, in the released format, which knows nothing of where
experts are, and are trained and scored by the commands that it and ``mammoth-jax eval synthetic`` are; nothing else is
done to them.  All arms of a row have their first seed before any has its second.  What is finished is not done again;
the same command goes on.  The row ``tokenizer`` needs ``scripts/semantic_alignment.py --out RUNS/semantic``.
"""

import argparse
import dataclasses
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Training:
    """A run: a stage's configuration, the stage whose weights it starts from, and what is different."""

    name: str
    config: str
    start: str
    words: tuple[str, ...] = ()

    def overrides(self, runs: Path, seed: int) -> list[str]:
        """Words for ``train``; ``{runs}`` and ``{seed}`` stand in :attr:`words` for what they say."""
        frozen = (f"--frozen.{part}={runs}/nano_{part}" for part in ("words", "mammothtok", "vae"))
        own = (word.replace("{runs}", str(runs)).replace("{seed}", str(seed)) for word in self.words)
        return [*frozen, *own, f"--run.seed={seed}"]

    def needs(self, runs: Path, seed: int) -> list[Path]:
        """What must be there before it begins."""
        frozen = (word.partition("=") for word in self.overrides(runs, seed))
        paths = (Path(value) for name, _, value in frozen if name.startswith("--frozen."))
        return [runs / f"nano_{self.start}", *paths]


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: a run, and how its pictures are drawn."""

    label: str
    training: Training
    drawing: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """A comparison: table of the paper, task of ``eval synthetic``, score and what stands for chance beside it."""

    name: str
    table: str
    task: str
    score: str
    chance: str
    arms: tuple[Arm, ...]


def _first_stage(name: str, *words: str) -> Training:
    return Training(name, "nano/pre_stage1", "understanding", words)


def _experts(label: str, **settings: object) -> Arm:
    words = (f"--model.backbone.decoder.experts.{name}={value}" for name, value in settings.items())
    return Arm(label.replace("_", " "), _first_stage(f"experts_{label}", *words), _TOKENS)


def _second_stage(name: str, *words: str) -> Training:
    return Training(name, "nano/pre_stage2", "layouts", words)


def _features(label: str, layers: str) -> Arm:
    return Arm(label, _second_stage(f"features_{label}", f"--model.condition.layers={layers}"))


_DRAWING = ("drawing", "drawing.overall", "drawing.overall.shuffled")
_EDITING = ("edit", "edit.overall", "edit.overall.unchanged")
_TEXT = ("--model.condition.mode=text", "--objective.alignment=0")
_TOKENS, _DIFFUSION = ("--mode", "ar"), ("--mode", "diffusion")
# As the recipe has them: experts in the deeper half, several layers; similarity noise, every form of reference.
_FIRST, _SECOND = _first_stage("first_stage"), _second_stage("second_stage")

ROWS = (
    Row(
        "experts",
        "8: where generation experts are",
        *_DRAWING,
        (
            Arm("deeper half", _FIRST, _TOKENS),
            _experts("all_layers", start=0),
            _experts("none", kind="none"),
            _experts("deeper_half_with_attention", kind="ffn_attention"),
        ),
    ),
    Row(
        "features",
        "10: which layers' features the diffusion transformer is given",
        *_DRAWING,
        (_features("last", "[-1]"), _features("penultimate", "[-2]"), Arm("several", _SECOND)),
    ),
    Row(
        "noise",
        "section 3.1: noise on the visual tokens that are read",
        *_DRAWING,
        (
            Arm("similarity", _SECOND),
            Arm("region", _second_stage("noise_region", "--objective.noise={type: RegionNoise, rate: 0.1}")),
            Arm("none", _second_stage("noise_none", "--objective.noise=null")),
        ),
    ),
    Row(
        "modes",
        "11: visual tokens, diffusion, or both",
        *_DRAWING,
        (
            Arm("visual tokens alone", _SECOND, _TOKENS),
            Arm("diffusion alone", _second_stage("modes_text", *_TEXT), _DIFFUSION),
            Arm("both", _SECOND),
        ),
    ),
    Row(
        "references",
        "9: in which form the picture to edit is read",
        *_EDITING,
        (
            Arm("vision", _second_stage("references_vision", "--references.tokens=false"), ("--no-tokens",)),
            Arm("tokens", _second_stage("references_tokens", "--references.vision=false"), ("--no-vision",)),
            Arm("both", _SECOND),
        ),
    ),
    Row(
        "tokenizer",
        "A.2: visual tokens with and without the semantic loss",
        *_DRAWING,
        tuple(
            Arm(label, _first_stage(f"tokenizer_{arm}", frozen), _TOKENS)
            for label, arm in (("semantic", "with"), ("plain", "without"))
            for frozen in [f"--frozen.mammothtok={{runs}}/semantic/{arm}_{{seed}}"]
        ),
    ),
)


class OutOfTimeError(Exception):
    """The time that was given is over; everything is saved."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Where everything lies, and how much of it there is."""

    runs: Path
    out: Path
    steps: int
    count: int
    deadline: float

    def train(self, training: Training, seed: int) -> Path:
        """The finished run."""
        run = self.out / f"{training.name}_{seed}"
        words = [*training.overrides(self.runs, seed), f"--run.steps={self.steps}"]
        if not (run / "finished").exists():
            start = self._start(training.start)
            train = ["train", training.config, "--out", str(run), "--init", str(start)]
            self._command(run.name, "mammoth_jax", [*train, *words])
            (run / "finished").touch()
        return run

    def _start(self, stage: str) -> Path:
        """A stage's weights in the released format: layer by layer, for models that stack their layers otherwise."""
        run, folder = self.runs / f"nano_{stage}", self.out / f"start_{stage}"
        if (run / "config.json").exists():
            return run
        if not folder.exists():
            self._command(folder.name, "checkpoint_convert", ["to-torch", str(run), str(folder)])
        return folder

    def score(self, row: Row, arm: Arm, seed: int) -> None:
        """Trains and scores an arm, as far as that has not been done."""
        run = self.train(arm.training, seed)
        out = self.out / f"{self._scored(row, arm)}_{seed}"
        if not (out / "scores.json").exists():
            words = ["--model", str(run), "--out", str(out), "--tasks", row.task, "--count", str(self.count)]
            self._command(out.name, "mammoth_jax", ["eval", "synthetic", *words, *arm.drawing])

    @staticmethod
    def _scored(row: Row, arm: Arm) -> str:
        return f"{row.name}-{arm.label.replace(' ', '_')}"

    def found(self) -> dict[tuple[str, str], list[Mapping[str, float]]]:
        """The scores that are there, of all rows, arms and seeds."""
        return {
            (row.name, arm.label): [
                json.loads(file.read_text(encoding="utf-8"))
                for file in sorted(self.out.glob(f"{self._scored(row, arm)}_[0-9]*/scores.json"))
            ]
            for row in ROWS
            for arm in row.arms
        }

    def _command(self, name: str, module: str, words: Sequence[str]) -> None:
        """A command, interrupted when time is over; its seconds go to ``hours.jsonl``."""
        start = time.time()
        if start >= self.deadline:
            raise OutOfTimeError
        print(f"== {name}", flush=True)
        process = subprocess.Popen([sys.executable, "-m", module, *words])
        try:
            status = process.wait(self.deadline - start)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            status = process.wait()
        except KeyboardInterrupt:  # the terminal has told the command too
            status = process.wait()
        with (self.out / "hours.jsonl").open("a", encoding="utf-8") as times:
            times.write(json.dumps({"name": name, "seconds": round(time.time() - start, 1)}) + "\n")
        if status == 130:
            raise OutOfTimeError
        if status:
            raise SystemExit(f"ablations: {name} ended with status {status}")

    def hold(self) -> None:
        """Keeps to the budget that the folder was begun with, or arms would not be comparable."""
        file, own = self.out / "budget.json", {"steps": self.steps, "count": self.count}
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else own
        if before != own:
            raise SystemExit(
                f"ablations: {self.out} was begun with {before}, not {own}; use these or another --out"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(own) + "\n", encoding="utf-8")

    def hours(self) -> float:
        """Spent so far."""
        log = self.out / "hours.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return sum(json.loads(line)["seconds"] for line in lines) / 3600


def table(
    rows: Sequence[Row], found: Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
) -> Iterator[str]:
    """Lines of Markdown: per cent, mean and standard deviation over seeds, chance, whether the score is twice that."""
    yield "| paper's table | arm | seeds | score | chance | above twice chance |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        for arm in row.arms:
            scores = found.get((row.name, arm.label), ())
            if not scores:
                continue
            own, chance = ([100 * each[name] for each in scores] for name in (row.score, row.chance))
            spread = f" ± {statistics.stdev(own):.1f}" if len(own) > 1 else ""
            mean, beside = statistics.mean(own), statistics.mean(chance)
            cells = (row.table, arm.label, str(len(own)), f"{mean:.1f}{spread}", f"{beside:.1f}")
            yield "| " + " | ".join((*cells, "yes" if mean > 2 * beside else "no")) + " |"


def main() -> int:
    """Trains and scores what is missing; prints the table of all that is there and writes it to OUT/table.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the recipe's folder")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument(
        "--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names)
    )
    parser.add_argument("--steps", type=int, default=1000, help="of every arm (default 1000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=50, help="prompts of each kind (default 50)")
    parser.add_argument("--minutes", type=float, default=150, help="then stop; go on later (default 150)")
    args = parser.parse_args()
    if args.count < 2:
        parser.error(f"--count {args.count}: expected 2 or more, for captions are shuffled among them")
    rows = [row for row in ROWS if row.name in args.rows]
    budget = Budget(args.runs, args.out, args.steps, args.count, time.time() + 60 * args.minutes)
    arms = [(row, arm, seed) for row in rows for seed in args.seeds for arm in row.arms]
    needed = dict.fromkeys(path for _, arm, seed in arms for path in arm.training.needs(args.runs, seed))
    if missing := [str(path) for path in needed if not path.exists()]:
        parser.error(f"not there: {', '.join(missing)}; make them first, or leave out --rows that need them")
    budget.hold()
    try:
        for row, arm, seed in arms:
            budget.score(row, arm, seed)
    except OutOfTimeError:
        print("stopped; the same command goes on", flush=True)
        return 130
    finally:
        steps = f"{args.steps} steps an arm, {budget.hours():.1f} hours in all"
        text = "\n".join([*table(ROWS, budget.found()), "", steps, ""])
        (args.out / "table.md").write_text(text, encoding="utf-8")
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
