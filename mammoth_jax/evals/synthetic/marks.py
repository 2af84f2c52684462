"""All marks of a run: each picture and answer against what was asked for, and what stands beside it.

The finder takes far longer than everything around it, so judging is laid out as calls of :mod:`judging`, which a pool
of processes works off and which are not repeated when scoring goes on.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mammoth_jax.core.progress import Progress
from mammoth_jax.data import synthetic
from mammoth_jax.data.synthetic.score.answer import judge_answer
from mammoth_jax.evals.synthetic import judging
from mammoth_jax.evals.synthetic.answers import SHOWN, WITHHELD
from mammoth_jax.evals.synthetic.judging import (
    SCORE,
    Mark,
    Names,
    judge_drawings,
    judge_edits,
    judge_scene,
)
from mammoth_jax.evals.synthetic.pictures import files
from mammoth_jax.evals.synthetic.reconstructions import Reconstruct
from mammoth_jax.evals.synthetic.samples import Sample

SHIFTS = (1, 2, 3, 5, 7)
"""Shuffled captions: every picture against those of the samples so many places further in its kind."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A function of :mod:`judging` and its arguments; equal keys in one folder give equal marks."""

    key: str
    function: Callable[..., list[Mark]]
    arguments: tuple


def drawing_calls(samples: Sequence[Sample], out: Path, num_images: int, names: Names) -> Iterator[Call]:
    """Drawings against their captions and, shuffled, against those of other samples of their kind."""
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    for kind in kinds.values():
        for place, sample in enumerate(kind):
            others = [kind[(place + shift) % len(kind)].spec for shift in SHIFTS if shift % len(kind)]
            arguments = (sample, others, names, out, files(sample, num_images))
            yield Call(f"{sample.stem} {names.score}", judge_drawings, arguments)


def ceiling_calls(
    samples: Sequence[Sample], reconstructions: Mapping[str, Reconstruct], task: str
) -> Iterator[Call]:
    """The true scenes as each of the model's coders gives them back, against their captions."""
    scenes = [sample.picture() for sample in samples]
    for name, reconstruct in reconstructions.items():
        for sample, picture in zip(samples, reconstruct(scenes), strict=True):
            yield Call(f"{sample.stem} {name}", judge_scene, (sample, task, name, picture))


def edit_calls(
    samples: Sequence[Sample],
    captioned: Sequence[Sample],
    out: Path,
    num_images: int,
    reconstruct: Reconstruct,
) -> Iterator[Call]:
    """Edits, and the same of what nobody edited: the unchanged copy, the true result out of the VAE, and what
    ``captioned``, the samples of the task ``edit-caption``, were drawn without the reference.

    ``reconstruct`` is the VAE's.
    """
    again = reconstruct([sample.picture(0) for sample in samples])
    results = reconstruct([sample.picture(1) for sample in samples])
    alone = {(sample.kind, sample.number): files(sample, num_images) for sample in captioned}
    for sample, coded, result in zip(samples, again, results, strict=True):
        beside = {"caption_alone": alone.get((sample.kind, sample.number), [])}
        arguments = (sample, coded, out, files(sample, num_images), beside, {"vae": result})
        with_caption = " and by caption" if beside["caption_alone"] else ""
        yield Call(f"{sample.stem} {SCORE}{with_caption}", judge_edits, arguments)


def question_marks(samples: Sequence[Sample], answers: Mapping[tuple[str, str], str]) -> Iterator[Mark]:
    """Answers to questions, and those that were given without the picture."""
    for sample in samples:
        for measure, how in ((SCORE, SHOWN), (WITHHELD, WITHHELD)):
            answer = answers[sample.stem, how]
            right = judge_answer(sample.question, answer)
            wrong = () if right else (f"{answer!r}, not {sample.question.answer!r}",)
            yield Mark("question", sample.kind, sample.language, measure, float(right), sample.stem, wrong)


def work_off(calls: Sequence[Call], workers: int, log: Path, progress: Progress) -> Iterator[Mark]:
    """The marks of all calls, in their order, made by so many processes; by this one if that is one.

    Those that are in the log, made by the scorer as it is now, are not made again; new ones are added to it.
    """
    scorer = scorer_digest()
    made = _read(log, scorer)
    missing = [call for call in calls if call.key not in made]
    with contextlib.ExitStack() as stack:
        found: Iterable[list[Mark]] = map(_call, missing)
        if workers > 1 and missing:
            context = multiprocessing.get_context("spawn")  # a fork would copy the accelerator's threads
            pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_leave_interrupts)
            # Without this an interrupt would wait until everything had been scored.
            stack.callback(pool.shutdown, cancel_futures=True)
            found = pool.map(_call, missing, chunksize=4)
        lines = stack.enter_context(log.open("a", encoding="utf-8"))
        if log.stat().st_size and not log.read_bytes().endswith(b"\n"):
            lines.write("\n")
        for done, (call, marks) in enumerate(zip(missing, found, strict=True), 1):
            made[call.key] = marks
            line = {"scorer": scorer, "key": call.key, "marks": [dataclasses.asdict(mark) for mark in marks]}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            lines.flush()
            progress("scoring", len(calls) - len(missing) + done, len(calls))
    for call in calls:
        yield from made[call.key]


def scorer_digest() -> str:
    """The scorer's own code and that of the world that it knows, by content."""
    whole = hashlib.sha256()
    for file in [Path(judging.__file__), *sorted(Path(synthetic.__path__[0]).rglob("*.py"))]:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:16]


def _read(log: Path, scorer: str) -> dict[str, list[Mark]]:
    """What the log has of this scorer; its last line may be cut short."""
    made: dict[str, list[Mark]] = {}
    for text in log.read_text(encoding="utf-8").split("\n") if log.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["scorer"] == scorer:
            made[line["key"]] = [
                Mark(**(mark | {"reasons": tuple(mark["reasons"])})) for mark in line["marks"]
            ]
    return made


def _leave_interrupts() -> None:
    """Ctrl-C reaches all processes: the one that waits for the others ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(call: Call) -> list[Mark]:
    return call.function(*call.arguments)
