"""The four tasks of the world, and its texts, as sources of examples.

Each class is its own configuration, its source of records and the form that makes examples out of them.  Record ``i``
depends on the settings and ``i`` alone; so do its words, and where the sample stands in an order does not matter.
"""

import dataclasses
import functools
from abc import abstractmethod
from typing import Any, ClassVar, get_args

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Example, Place, Task, Turn
from mammoth_jax.data.record import Picture, Record
from mammoth_jax.data.synthetic.documents import (
    DOCUMENT_KINDS,
    DOCUMENT_WEIGHTS,
    Document,
    DocumentKind,
    document,
)
from mammoth_jax.data.synthetic.drawings import CATEGORIES, CATEGORY_WEIGHTS, Drawing, drawing
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import OPERATIONS, Edit, Operation, sample_edit
from mammoth_jax.data.synthetic.instructions import instruction
from mammoth_jax.data.synthetic.language import LANGUAGES, Language, speaker
from mammoth_jax.data.synthetic.planned import SMALLEST_SIDE, Look
from mammoth_jax.data.synthetic.prompt_spec import Category
from mammoth_jax.data.synthetic.questions import KIND_WEIGHTS, KINDS, Interview, Kind, interview
from mammoth_jax.data.synthetic.reasoning import RIDDLE_KINDS, Riddle, RiddleKind, riddle
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticTask:
    """What the tasks have in common.

    ``picture_size`` is the side of a square, or height and width, in pixels; ``language`` is drawn where it is None.

    Raises:
      InputError: a side below 64 pixels, a length below one, or an unknown split, language or kind.
    """

    split: Split = "train"
    picture_size: int | tuple[int, int] = 64
    seed: int = 0
    length: int = 1_000_000
    language: Language | None = None

    task: ClassVar[Task]
    _stream: ClassVar[int]  # of random numbers: each task, split and kind has its own
    _kinds: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        if min(self.height_and_width) < SMALLEST_SIDE:
            raise InputError(
                f"picture_size {self.picture_size}: tasks need sides of at least {SMALLEST_SIDE} pixels"
            )
        if self.length < 1:
            raise InputError(f"length {self.length}: expected at least one")
        if self.split not in get_args(Split):
            raise InputError(f"split {self.split!r}: expected one of {', '.join(get_args(Split))}")
        if self.language is not None and self.language not in LANGUAGES:
            raise InputError(f"language {self.language!r}: expected one of {', '.join(LANGUAGES)}")
        if self._only is not None and self._only not in self._kinds:
            raise InputError(
                f"{self._only!r} is no kind of {self.task}: expected one of {', '.join(self._kinds)}"
            )

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Sides of every picture, in pixels."""
        if isinstance(self.picture_size, int):
            return self.picture_size, self.picture_size
        return self.picture_size

    @property
    @abstractmethod
    def _only(self) -> str | None:
        """The one kind of samples that is asked for, if it is one."""

    @property
    def name(self) -> str:
        """The task, the split and everything else that the samples depend on."""
        height, width = self.height_and_width
        parts = (f"synthetic-{self.task}", self.split, self.seed, f"{height}x{width}")
        some = (self._only or "all").replace(" ", "_")
        return "/".join(map(str, (*parts, some, self.language or "both")))

    def __len__(self) -> int:
        return self.length

    def _draws(self, index: int) -> Draws:
        """The random numbers of a sample.

        Raises:
          IndexError: outside ``[0, length)``.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        kind = 0 if self._only is None else 1 + self._kinds.index(self._only)
        return Draws(self.seed, self._stream + 2 * kind + (self.split == "heldout"), index)

    def _language(self, draws: Draws) -> Language:
        return self.language or draws.choice(LANGUAGES)

    def _picture(self, key: str, scene: Scene) -> Picture:
        return Picture(key, functools.partial(render, scene), (scene.height, scene.width))

    def _record(self, index: int, scenes: tuple[Scene, ...], fields: dict[str, Any]) -> Record:
        key = f"{self.name}/{index:08d}"
        pictures = tuple(
            self._picture(f"{key}/{number}" if number else key, scene) for number, scene in enumerate(scenes)
        )
        return Record(key, self.name, pictures, fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticDrawings(SyntheticTask):
    """Text to image.  ``fields``: ``drawing``, a :class:`Drawing`; ``category``: all of them if None."""

    category: Category | None = None
    look: Look = Look()
    task: ClassVar[Task] = "t2i"
    _stream: ClassVar[int] = 1000
    _kinds: ClassVar[tuple[str, ...]] = CATEGORIES

    @property
    def _only(self) -> str | None:
        return self.category

    @property
    def name(self) -> str:
        """With the look, where it is not the world's own."""
        own = "" if self.look == Look() else f"/{self.look.least_size:g}px {self.look.overlaps:g} overlapping"
        return super().name + own

    def __getitem__(self, index: int) -> Record:
        draws = self._draws(index)
        category = self.category or CATEGORIES[draws.weighted(CATEGORY_WEIGHTS)]
        sample = drawing(
            self.split, category, *self.height_and_width, draws, self._language(draws), self.look
        )
        return self._record(index, (sample.scene,), {"drawing": sample})

    def example(self, record: Record, place: Place | None = None) -> Example:
        """The caption and the picture."""
        sample: Drawing = record.fields["drawing"]
        turn = Turn("user", (sample.caption.text,))
        return Example(self.task, (turn,), target=record.pictures[0], key=record.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticEdits(SyntheticTask):
    """Editing.  ``pictures``: before, after.  ``fields``: ``edit``, an :class:`Edit`; ``instruction``."""

    operation: Operation | None = None
    task: ClassVar[Task] = "edit"
    _stream: ClassVar[int] = 2000
    _kinds: ClassVar[tuple[str, ...]] = OPERATIONS

    @property
    def _only(self) -> str | None:
        return self.operation

    def __getitem__(self, index: int) -> Record:
        draws = self._draws(index)
        operation = self.operation or draws.choice(OPERATIONS)
        language = self._language(draws)
        edit: Edit = sample_edit(self.split, operation, *self.height_and_width, draws)
        said = instruction(edit, speaker(language, draws), draws)
        return self._record(
            index, (edit.before, edit.after), {"edit": edit, "instruction": said, "language": language}
        )

    def example(self, record: Record, place: Place | None = None) -> Example:
        """The picture before and the instruction, and the picture after."""
        before, after = record.pictures
        turn = Turn("user", (before, record.fields["instruction"]))
        return Example(self.task, (turn,), target=after, key=record.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticQuestions(SyntheticTask):
    """Questions and answers.  ``fields``: ``interview``, an :class:`Interview`; ``kind`` of the first question."""

    kind: Kind | None = None
    task: ClassVar[Task] = "it2t"
    _stream: ClassVar[int] = 3000
    _kinds: ClassVar[tuple[str, ...]] = KINDS

    @property
    def _only(self) -> str | None:
        return self.kind

    def __getitem__(self, index: int) -> Record:
        draws = self._draws(index)
        kind = self.kind or KINDS[draws.weighted(KIND_WEIGHTS)]
        asked = interview(self.split, kind, *self.height_and_width, draws, self._language(draws))
        return self._record(index, (asked.scene,), {"interview": asked})

    def example(self, record: Record, place: Place | None = None) -> Example:
        """The picture with the first question, its answer, and further questions and answers."""
        asked: Interview = record.fields["interview"]
        turns: list[Turn] = []
        for question in asked.questions:
            shown = () if turns else record.pictures
            turns += [Turn("user", (*shown, question.text)), Turn("assistant", (question.answer,))]
        return Example(self.task, tuple(turns), key=record.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticRiddles(SyntheticTask):
    """Reasoning, then drawing.  ``fields``: ``riddle``, a :class:`Riddle`."""

    kind: RiddleKind | None = None
    task: ClassVar[Task] = "a2a"
    _stream: ClassVar[int] = 4000
    _kinds: ClassVar[tuple[str, ...]] = RIDDLE_KINDS

    @property
    def _only(self) -> str | None:
        return self.kind

    def __getitem__(self, index: int) -> Record:
        draws = self._draws(index)
        kind = self.kind or draws.choice(RIDDLE_KINDS)
        sample: Riddle = riddle(self.split, kind, *self.height_and_width, draws, self._language(draws))
        return self._record(index, (sample.scene,), {"riddle": sample})

    def example(self, record: Record, place: Place | None = None) -> Example:
        """The prompt, the reasoning and the picture."""
        sample: Riddle = record.fields["riddle"]
        turn = Turn("user", (sample.prompt,))
        return Example(
            self.task, (turn,), target=record.pictures[0], reasoning=sample.reasoning, key=record.key
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticDocuments(SyntheticTask):
    """Text alone.  ``fields``: ``document``, a :class:`Document`; there are no pictures."""

    kind: DocumentKind | None = None
    task: ClassVar[Task] = "text"
    _stream: ClassVar[int] = 5000
    _kinds: ClassVar[tuple[str, ...]] = DOCUMENT_KINDS

    @property
    def _only(self) -> str | None:
        return self.kind

    def __getitem__(self, index: int) -> Record:
        draws = self._draws(index)
        kind = self.kind or DOCUMENT_KINDS[draws.weighted(DOCUMENT_WEIGHTS)]
        return self._record(index, (), {"document": document(self.split, kind, draws, self._language(draws))})

    def example(self, record: Record, place: Place | None = None) -> Example:
        """A document, or a question and its answer."""
        sample: Document = record.fields["document"]
        if sample.answer is None:
            return Example(self.task, document=sample.text, key=record.key)
        turns = (Turn("user", (sample.text,)), Turn("assistant", (sample.answer,)))
        return Example(self.task, turns, key=record.key)
