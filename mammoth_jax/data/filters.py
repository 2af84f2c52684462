"""Which examples are used: sizes, ratios, scores, lengths, how much an edit changes.

A filter looks at what it needs and no more: sizes are read from the heads of files, and only :class:`ChangedArea`
decodes pictures.  What is left out is no error; it is counted by the filter's reason.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float
from mammoth_jax.data.example import Example, Filtered
from mammoth_jax.data.record import Picture, Record

CHANGE_SIDE = 64
"""Both pictures of an edit are compared at this size."""


def _check_range(what: str, least: float | None, most: float | None) -> None:
    if least is None and most is None:
        raise InputError(f"filter {what}: give least, most or both")
    if least is not None and most is not None and least > most:
        raise InputError(f"filter {what}: least {least} is above most {most}")


def _check_value(value: float, least: float | None, most: float | None, what: str) -> None:
    """Filtered, if a value is outside its range."""
    if least is not None and value < least:
        raise Filtered(f"{what} below {least:g}")
    if most is not None and value > most:
        raise Filtered(f"{what} above {most:g}")


def _measured(example: Example) -> tuple[Picture, ...]:
    """The pictures whose sizes count: the one that is drawn, or else all that are shown."""
    return example.pictures if example.target is None else (example.target,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortSide:
    """Keeps pictures whose shorter side has at least so many pixels: of drawn pictures, or else of all shown."""

    least: int

    def check(self, example: Example) -> None:
        """Filtered, if one is smaller."""
        for picture in _measured(example):
            _check_value(min(picture.size()), self.least, None, "short side")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AspectRatio:
    """Keeps pictures with a width divided by height within a range: of drawn pictures, or else of all shown."""

    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        _check_range("AspectRatio", self.least, self.most)

    def check(self, example: Example) -> None:
        """Filtered, if one is outside."""
        for picture in _measured(example):
            height, width = picture.size()
            _check_value(width / height, self.least, self.most, "aspect ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Keeps records whose ``field`` is a number within a range: aesthetic score, similarity of text and picture,
    probability of a watermark.  Without that number a record is left out, under a reason of its own.
    """

    field: str
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        _check_range(f"Score of {self.field}", self.least, self.most)

    def check(self, record: Record) -> None:
        """Filtered, if it is outside, or no number."""
        try:
            value = float(record.fields.get(self.field, "none"))
        except (TypeError, ValueError):
            raise Filtered(f"no {self.field}") from None
        if np.isnan(value):
            raise Filtered(f"no {self.field}")
        _check_value(value, self.least, self.most, self.field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allowed:
    """Keeps records whose ``field`` has one of the ``values``, compared as text: a language, a licence, a flag."""

    field: str
    values: tuple[str, ...]

    def check(self, record: Record) -> None:
        """Filtered, if it has another one."""
        if str(record.fields.get(self.field)) not in self.values:
            raise Filtered(f"other {self.field}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextLength:
    """Keeps examples whose text has so many characters: caption or instruction, document, or all answers."""

    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        _check_range("TextLength", self.least, self.most)

    def check(self, example: Example) -> None:
        """Filtered, if it is shorter or longer."""
        if example.document is not None:
            length = len(example.document)
        else:
            speaker = "assistant" if example.target is None else "user"
            length = sum(len(turn.text) for turn in example.turns if turn.role == speaker)
        _check_value(length, self.least, self.most, "text length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChangedArea:
    """Keeps edits that change at least, or at most, such a share of the picture; other tasks pass.

    The last reference and the target are scaled to 64 x 64; a pixel is changed if a colour differs by more than
    ``threshold`` (of 255) there.
    """

    least: float | None = None
    most: float | None = None
    threshold: int = 16

    def __post_init__(self) -> None:
        _check_range("ChangedArea", self.least, self.most)

    def check(self, example: Example) -> None:
        """Filtered, if it is less or more."""
        if example.target is None or not example.pictures:
            return
        change = np.abs(_small(example.pictures[-1]) - _small(example.target)).max(axis=-1)
        _check_value(float((change > self.threshold).mean()), self.least, self.most, "changed area")


def _small(picture: Picture) -> Float[np.ndarray, "side side 3"]:
    """A picture at the size of comparison."""
    size = (CHANGE_SIDE, CHANGE_SIDE)
    return np.asarray(Image.fromarray(picture.decode()).resize(size, Image.Resampling.BOX), np.float32)


RecordFilter = Score | Allowed
"""Filters that look at a record's fields, before it is made an example."""

ExampleFilter = ShortSide | AspectRatio | TextLength | ChangedArea
Filter = RecordFilter | ExampleFilter


def check_record(filters: Sequence[Filter], record: Record) -> None:
    """Applies the filters of a record's fields, in their order.

    Raises:
      Filtered: one leaves the record out.
    """
    for each in filters:
        if isinstance(each, RecordFilter):
            each.check(record)


def check_example(filters: Sequence[Filter], example: Example) -> None:
    """Applies the other filters, in their order.

    Raises:
      Filtered: one leaves the example out.
      UnreadablePicture: a picture that one looks at cannot be read.
    """
    for each in filters:
        if isinstance(each, ExampleFilter):
            each.check(example)
