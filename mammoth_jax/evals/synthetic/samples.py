"""What the model is asked: samples of the held-out combinations, half of them in Chinese."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from PIL import Image

from mammoth_jax.core.config import encode
from mammoth_jax.data.record import Record
from mammoth_jax.data.synthetic.captions import Caption, caption
from mammoth_jax.data.synthetic.drawings import CATEGORIES, Drawing
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import OPERATIONS, Edit
from mammoth_jax.data.synthetic.language import LANGUAGES, Language
from mammoth_jax.data.synthetic.prompt_spec import PromptSpec
from mammoth_jax.data.synthetic.questions import KINDS, TOLD, Question
from mammoth_jax.data.synthetic.reasoning import RIDDLE_KINDS
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.tasks import (
    SyntheticDrawings,
    SyntheticEdits,
    SyntheticQuestions,
    SyntheticRiddles,
)

Task = Literal["drawing", "edit", "edit-caption", "question", "riddle", "riddle-think"]
"""``edit-caption`` draws what an edit should show from its caption alone; ``riddle-think`` reasons before drawing."""

TASKS: tuple[Task, ...] = get_args(Task)
GENEVAL = CATEGORIES[:6]
KINDS_OF: Mapping[Task, tuple[str, ...]] = {
    "drawing": (*GENEVAL, "text"),
    "edit": OPERATIONS,
    "edit-caption": OPERATIONS,
    "question": tuple(kind for kind in KINDS if kind not in TOLD),
    "riddle": RIDDLE_KINDS,
    "riddle-think": RIDDLE_KINDS,
}
PROMPT_SEED = 0
"""The samples are always the same ones."""

_CAPTION_STREAM = 6000  # of random numbers, apart from those of the tasks


@dataclasses.dataclass(frozen=True)
class Sample:
    """One prompt or question.

    Attributes:
        task, kind, number: which it is; even numbers are English, odd ones Chinese.
        language: of the prompt.
        prompt: the words.
        record: the scene that it comes from, as the task's source gives it.
    """

    task: Task
    kind: str
    number: int
    language: Language
    prompt: str
    record: Record

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"{self.task}/{self.kind.replace(' ', '_')}/{self.number:04d}"

    @property
    def spec(self) -> PromptSpec:
        """What a drawing must show."""
        fields = self.record.fields
        return fields["riddle"].spec if "riddle" in fields else fields["drawing"].caption.spec

    @property
    def edit(self) -> Edit:
        """What an edit must change."""
        return self.record.fields["edit"]

    @property
    def question(self) -> Question:
        """The question and its answer."""
        return self.record.fields["interview"].questions[0]

    def picture(self, number: int = 0) -> Image.Image:
        """The true scene; of an edit 0 before, 1 after."""
        return Image.fromarray(self.record.pictures[number].decode())

    def to_dict(self) -> dict[str, Any]:
        """A line of the list of prompts: what was asked, and what a scorer holds it against."""
        line = {"file": self.stem, "kind": self.kind, "language": self.language, "prompt": self.prompt}
        fields = self.record.fields
        if "edit" in fields:
            return line | {"edit": self.edit.to_dict(), "scene": encode(self.edit.before)}
        if "interview" in fields:
            return line | {"answer": self.question.answer, "scene": encode(fields["interview"].scene)}
        scene: Scene = fields["riddle" if "riddle" in fields else "drawing"].scene
        return line | {"spec": self.spec.to_dict(), "scene": encode(scene)}


@functools.cache
def samples(task: Task, count: int, picture_size: tuple[int, int] = (64, 64)) -> tuple[Sample, ...]:
    """``count`` samples of each kind, kind by kind; the first ones are the same whatever the count."""
    return tuple(
        sample
        for kind in KINDS_OF[task]
        for sample in sorted(
            (
                Sample(task, kind, number, language, prompt, record)
                for odd, language in enumerate(LANGUAGES)
                for number, (prompt, record) in zip(
                    range(odd, count, 2), _ASKED[task](kind, language, picture_size), strict=False
                )
            ),
            key=lambda sample: sample.number,
        )
    )


def after_caption(edit: Edit, language: Language, number: int) -> Caption:
    """A full caption of the scene after an edit."""
    return caption(edit.after, Draws(PROMPT_SEED, _CAPTION_STREAM, number), language, "full")


_Asked = Iterator[tuple[str, Record]]


def _settings(language: Language, size: tuple[int, int]) -> dict[str, Any]:
    return {"split": "heldout", "picture_size": size, "seed": PROMPT_SEED, "language": language}


def _drawings(kind: str, language: Language, size: tuple[int, int]) -> _Asked:
    source = SyntheticDrawings(**_settings(language, size), category=kind)  # type: ignore[arg-type]
    for record in _records(source, language):
        sample: Drawing = record.fields["drawing"]
        yield sample.caption.text, record


def _edits(kind: str, language: Language, size: tuple[int, int]) -> _Asked:
    source = SyntheticEdits(**_settings(language, size), operation=kind)  # type: ignore[arg-type]
    for record in _records(source, language):
        if record.fields["edit"].operation == kind:  # a search that finds nothing gives another operation
            yield record.fields["instruction"], record


def _edit_captions(kind: str, language: Language, size: tuple[int, int]) -> _Asked:
    for number, (_, record) in enumerate(_edits(kind, language, size)):
        yield after_caption(record.fields["edit"], language, number).text, record


def _questions(kind: str, language: Language, size: tuple[int, int]) -> _Asked:
    source = SyntheticQuestions(**_settings(language, size), kind=kind)  # type: ignore[arg-type]
    for record in _records(source, language):
        question: Question = record.fields["interview"].questions[0]
        if question.kind == kind:  # likewise
            yield question.text, record


def _riddles(kind: str, language: Language, size: tuple[int, int]) -> _Asked:
    source = SyntheticRiddles(**_settings(language, size), kind=kind)  # type: ignore[arg-type]
    for record in _records(source, language):
        yield record.fields["riddle"].prompt, record


def _records(source: Any, language: Language) -> Iterator[Record]:
    """Those that are this language's: where it alone differs, records of one number show the same scene."""
    return (source[index] for index in range(LANGUAGES.index(language), len(source), len(LANGUAGES)))


_ASKED: Mapping[Task, Callable[[str, Language, tuple[int, int]], _Asked]] = {
    "drawing": _drawings,
    "edit": _edits,
    "edit-caption": _edit_captions,
    "question": _questions,
    "riddle": _riddles,
    "riddle-think": _riddles,
}
