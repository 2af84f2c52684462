"""Marks: each picture and answer held against what was asked for, and what stands beside it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.score.answer import judge_answer
from mammoth_jax.data.synthetic.score.edit_judge import judge_edit, mean_difference
from mammoth_jax.data.synthetic.score.find import find
from mammoth_jax.data.synthetic.score.judge import judge
from mammoth_jax.evals.synthetic.answers import SHOWN, WITHHELD
from mammoth_jax.evals.synthetic.pictures import files
from mammoth_jax.evals.synthetic.reconstructions import Reconstruct
from mammoth_jax.evals.synthetic.samples import Sample

SHIFTS = (1, 2, 3, 5, 7)
"""Shuffled captions: every picture against those of the samples so many places further in its kind."""

SCORE = "score"
"""The measure that counts; all others stand beside it."""

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value between 0 and 1 of one sample, under the name of a measure.

    ``file`` is the picture or the sample that was looked at; ``reasons`` say what is wrong with it.
    """

    task: str
    kind: str
    language: str
    measure: str
    value: float
    file: str = ""
    reasons: tuple[str, ...] = ()

    def to_json(self) -> str:
        """A line of the list of results."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def drawing_marks(
    samples: Sequence[Sample],
    out: Path,
    num_images: int,
    task: str,
    measure: str,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Mark]:
    """Drawings against their captions and, ``shuffled``, against those of other samples of their kind.

    ``task`` and ``measure`` are what the marks are called; beside a measure other than the score the shuffled one has
    that name in front.
    """
    shuffled = "shuffled" if measure == SCORE else f"{measure}_shuffled"
    for kind in _by_kind(samples):
        for place, sample in enumerate(kind):
            mark = functools.partial(Mark, task, sample.kind, sample.language)
            others = [kind[(place + shift) % len(kind)] for shift in SHIFTS if shift % len(kind)]
            for file in files(sample, num_images):
                found = find(_read(out / file))
                verdict = judge(sample.spec, found)
                yield mark(measure, float(verdict.correct), file, verdict.reasons)
                if verdict.letters_right is not None:
                    yield mark(
                        "letters" if measure == SCORE else f"{measure}_letters", verdict.letters_right, file
                    )
                for other in others:
                    yield mark(shuffled, float(judge(other.spec, found).correct), file)
                tick()


def ceiling_marks(
    samples: Sequence[Sample], reconstructions: Mapping[str, Reconstruct], task: str
) -> Iterator[Mark]:
    """The true scenes as each of the model's coders gives them back, against their captions."""
    scenes = [sample.picture() for sample in samples]
    for name, reconstruct in reconstructions.items():
        for sample, picture in zip(samples, reconstruct(scenes), strict=True):
            verdict = judge(sample.spec, find(picture))
            yield Mark(
                task, sample.kind, sample.language, name, float(verdict.correct), sample.stem, verdict.reasons
            )


def edit_marks(
    samples: Sequence[Sample],
    captioned: Sequence[Sample],
    out: Path,
    num_images: int,
    reconstruct: Reconstruct,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Mark]:
    """Edits, and the same of what nobody edited: the unchanged copy, the true result out of the VAE, and what
    ``captioned``, the samples of the task ``edit-caption``, were drawn without the reference.

    ``reconstruct`` is the VAE's.
    """
    befores = [np.asarray(sample.picture(0)) for sample in samples]
    again = reconstruct([sample.picture(0) for sample in samples])
    results = reconstruct([sample.picture(1) for sample in samples])
    alone = {(sample.kind, sample.number): sample for sample in captioned}
    for sample, before, coded, result in zip(samples, befores, again, results, strict=True):
        difference = mean_difference(before, coded, sample.edit.changed_boxes)

        def mark(
            measure: str,
            after: Pixels,
            file: str,
            sample: Sample = sample,
            before: Pixels = before,
            difference: float = difference,
        ) -> list[Mark]:
            verdict = judge_edit(sample.edit, before, _as_large_as(before, after), difference)
            values = {measure: verdict.carried_out and verdict.preserved}
            if measure == SCORE:
                values |= {"carried_out": verdict.carried_out, "preserved": verdict.preserved}
            return [
                Mark("edit", sample.kind, sample.language, name, float(value), file, verdict.reasons)
                for name, value in values.items()
            ]

        for file in files(sample, num_images):
            yield from mark(SCORE, _read(out / file), file)
            tick()
        yield from mark("unchanged", before, sample.stem)
        yield from mark("vae", result, sample.stem)
        other = alone.get((sample.kind, sample.number))
        for file in [] if other is None else files(other, num_images):
            yield from mark("caption_alone", _read(out / file), file)


def question_marks(samples: Sequence[Sample], answers: Mapping[tuple[str, str], str]) -> Iterator[Mark]:
    """Answers to questions, and those that were given without the picture."""
    for sample in samples:
        for measure, how in ((SCORE, SHOWN), (WITHHELD, WITHHELD)):
            answer = answers[sample.stem, how]
            right = judge_answer(sample.question, answer)
            wrong = () if right else (f"{answer!r}, not {sample.question.answer!r}",)
            yield Mark("question", sample.kind, sample.language, measure, float(right), sample.stem, wrong)


def _by_kind(samples: Sequence[Sample]) -> list[list[Sample]]:
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    return list(kinds.values())


def _read(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _as_large_as(before: Pixels, after: Pixels) -> Pixels:
    """The edit at the size of what was edited, as it is compared."""
    if before.shape == after.shape:
        return after
    size = before.shape[1], before.shape[0]
    return np.asarray(Image.fromarray(after).resize(size, Image.Resampling.BICUBIC))
