"""All marks of a run: each picture and answer against what was asked for, and what stands beside it.

The finder takes far longer than everything around it, so judging is laid out as calls of :mod:`judging`, which a pool
of processes works off.
"""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mammoth_jax.core.progress import Progress
from mammoth_jax.data.synthetic.score.answer import judge_answer
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

Call = tuple[Callable[..., list[Mark]], tuple]
"""A function of :mod:`judging` and its arguments."""


def drawing_calls(samples: Sequence[Sample], out: Path, num_images: int, names: Names) -> Iterator[Call]:
    """Drawings against their captions and, shuffled, against those of other samples of their kind."""
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    for kind in kinds.values():
        for place, sample in enumerate(kind):
            others = [kind[(place + shift) % len(kind)].spec for shift in SHIFTS if shift % len(kind)]
            yield judge_drawings, (sample, others, names, out, files(sample, num_images))


def ceiling_calls(
    samples: Sequence[Sample], reconstructions: Mapping[str, Reconstruct], task: str
) -> Iterator[Call]:
    """The true scenes as each of the model's coders gives them back, against their captions."""
    scenes = [sample.picture() for sample in samples]
    for name, reconstruct in reconstructions.items():
        for sample, picture in zip(samples, reconstruct(scenes), strict=True):
            yield judge_scene, (sample, task, name, picture)


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
        yield judge_edits, (sample, coded, out, files(sample, num_images), beside, {"vae": result})


def question_marks(samples: Sequence[Sample], answers: Mapping[tuple[str, str], str]) -> Iterator[Mark]:
    """Answers to questions, and those that were given without the picture."""
    for sample in samples:
        for measure, how in ((SCORE, SHOWN), (WITHHELD, WITHHELD)):
            answer = answers[sample.stem, how]
            right = judge_answer(sample.question, answer)
            wrong = () if right else (f"{answer!r}, not {sample.question.answer!r}",)
            yield Mark("question", sample.kind, sample.language, measure, float(right), sample.stem, wrong)


def work_off(calls: Sequence[Call], workers: int, progress: Progress) -> Iterator[Mark]:
    """The marks of all calls, in their order, made by so many processes; by this one if that is one."""
    with contextlib.ExitStack() as stack:
        if workers > 1 and calls:
            context = multiprocessing.get_context("spawn")  # a fork would copy the accelerator's threads
            pool = concurrent.futures.ProcessPoolExecutor(workers, context)
            made = stack.enter_context(pool).map(_call, calls, chunksize=4)
        else:
            made = map(_call, calls)
        for done, marks in enumerate(made, 1):
            yield from marks
            progress("scoring", done, len(calls))


def _call(call: Call) -> list[Mark]:
    function, arguments = call
    return function(*arguments)
