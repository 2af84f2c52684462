"""One sample's pictures held against what was asked: what processes do side by side, without the model."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.prompt_spec import PromptSpec
from mammoth_jax.data.synthetic.score.edit_judge import judge_edit
from mammoth_jax.data.synthetic.score.find import find
from mammoth_jax.data.synthetic.score.judge import judge
from mammoth_jax.evals.synthetic.samples import Sample

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


@dataclasses.dataclass(frozen=True)
class Names:
    """What the marks of drawings are called: their task, and the measure of each kind of mark."""

    task: str
    score: str = SCORE
    shuffled: str = "shuffled"
    letters: str = "letters"


def judge_drawings(
    sample: Sample, others: Sequence[PromptSpec], names: Names, out: Path, files: Sequence[str]
) -> list[Mark]:
    """A sample's drawings against its caption, and against other captions."""
    marks = []
    for file in files:
        found = find(_read(out / file))
        verdict = judge(sample.spec, found)
        values = {names.score: float(verdict.correct)}
        if verdict.letters_right is not None:
            values[names.letters] = verdict.letters_right
        marks += [
            _mark(sample, names.task, name, value, file, verdict.reasons) for name, value in values.items()
        ]
        for other in others:
            right = judge(other, found).correct
            marks.append(_mark(sample, names.task, names.shuffled, float(right), file))
    return marks


def judge_scene(sample: Sample, task: str, measure: str, picture: Pixels) -> list[Mark]:
    """A picture that shows a sample's true scene."""
    verdict = judge(sample.spec, find(picture))
    return [_mark(sample, task, measure, float(verdict.correct), sample.stem, verdict.reasons)]


def judge_edits(
    sample: Sample,
    coded: Pixels,
    out: Path,
    files: Sequence[str],
    files_of: Mapping[str, Sequence[str]],
    pictures_of: Mapping[str, Pixels],
) -> list[Mark]:
    """A sample's edits, and what stands beside them by name: other files, other pictures.

    ``coded`` is the VAE's reconstruction of the picture before.
    """
    before = np.asarray(sample.picture(0))

    def judged(measure: str, after: Pixels, file: str) -> list[Mark]:
        verdict = judge_edit(sample.edit, before, _as_large_as(before, after), coded)
        values = {measure: verdict.carried_out and verdict.preserved}
        if measure == SCORE:
            values |= {"carried_out": verdict.carried_out, "preserved": verdict.preserved}
        return [
            _mark(sample, "edit", name, float(value), file, verdict.reasons) for name, value in values.items()
        ]

    marks = [
        mark
        for measure, names in {SCORE: files, **files_of}.items()
        for file in names
        for mark in judged(measure, _read(out / file), file)
    ]
    for measure, picture in {"unchanged": before, **pictures_of}.items():
        marks += judged(measure, picture, sample.stem)
    return marks


def _mark(
    sample: Sample, task: str, measure: str, value: float, file: str, reasons: tuple[str, ...] = ()
) -> Mark:
    return Mark(task, sample.kind, sample.language, measure, value, file, reasons)


def _read(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _as_large_as(before: Pixels, after: Pixels) -> Pixels:
    """The edit at the size of what was edited, as it is compared."""
    if before.shape == after.shape:
        return after
    size = before.shape[1], before.shape[0]
    return np.asarray(Image.fromarray(after).resize(size, Image.Resampling.BICUBIC))
