"""From records to examples: which fields of a record are said, shown and drawn.

Forms take fields by name; a source's field map gives them their names, so that most forms need no setting.  ``""`` for
a picture's field means the record's own pictures.  Editing has a file of its own, ``edit_forms``.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mammoth_jax.data.conversations import read_turns
from mammoth_jax.data.example import Example, Place, Task, Turn
from mammoth_jax.data.picture_files import flatten
from mammoth_jax.data.record import EmptyText, Picture, Record, UnreadableRecord, naming


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainText:
    """A document: the field ``text``."""

    task: ClassVar[Task] = "text"
    text: str = "text"

    def example(self, record: Record, place: Place) -> Example:
        """The document as it stands."""
        found = record.fields.get(self.text)
        if not isinstance(found, str) or not found.strip():
            raise EmptyText(f"{label(record)}: no {self.text}")
        return Example(self.task, document=found, key=label(record))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConversation:
    """A conversation without pictures: the field ``turns``."""

    task: ClassVar[Task] = "text"
    turns: str = "conversations"

    def example(self, record: Record, place: Place) -> Example:
        """The turns."""
        said = converse(record, self.turns, ())
        return Example(self.task, turns=said, key=label(record))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConversation:
    """A conversation about pictures (``conversations`` says what happens to its placeholders)."""

    task: ClassVar[Task] = "it2t"
    turns: str = "conversations"
    pictures: str = ""

    def example(self, record: Record, place: Place) -> Example:
        """The turns with their pictures; a record may have none."""
        said = converse(record, self.turns, shown(record, self.pictures))
        return Example(self.task, turns=said, key=label(record))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToImage:
    """A picture and what it shows: one caption of all that the fields ``captions`` hold is drawn, each as likely.

    A field holds a caption, a list of them, or a mapping of kinds to captions; with ``kinds`` only those count.
    """

    task: ClassVar[Task] = "t2i"
    captions: tuple[str, ...] = ("caption",)
    kinds: tuple[str, ...] = ()
    target: str = ""

    def example(self, record: Record, place: Place) -> Example:
        """The drawn caption and the picture."""
        every = [text for name in self.captions for text in texts(record.fields.get(name), self.kinds)]
        if not every:
            raise EmptyText(f"{label(record)}: no caption in {', '.join(self.captions)}")
        caption = every[place.choice("caption", len(every))]
        return Example(
            self.task,
            turns=(Turn("user", (caption,)),),
            target=one_picture(record, self.target),
            key=label(record),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningThenPicture:
    """A request, with or without reference pictures, the reasoning that is written, and the picture that is drawn."""

    task: ClassVar[Task] = "a2a"
    request: str = "request"
    reasoning: str = "reasoning"
    references: str = "references"
    target: str = "target"

    def example(self, record: Record, place: Place) -> Example:
        """Request, reasoning and picture, each one of several where the field has a list."""
        references = flatten(record.fields.get(self.references, ()))
        request = one_text(record, self.request, place)
        return Example(
            self.task,
            turns=(Turn("user", (*references, request)),),
            reasoning=one_text(record, self.reasoning, place),
            target=one_picture(record, self.target),
            key=label(record),
        )


def label(record: Record) -> str:
    """What messages call a record."""
    return f"{record.source}/{record.key}"


def texts(value: Any, kinds: Sequence[str] = ()) -> list[str]:
    """The texts of a field that are not empty: itself, a list's items, or a mapping's values (of some ``kinds``)."""
    if isinstance(value, Mapping):
        value = [text for kind, text in value.items() if not kinds or kind in kinds]
    every = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else ()
    return [text.strip() for text in every if isinstance(text, str) and text.strip()]


def one_text(record: Record, name: str, place: Place) -> str:
    """A field's text, drawn where there are several.

    Raises:
      EmptyText: there is none.
    """
    every = texts(record.fields.get(name))
    if not every:
        raise EmptyText(f"{label(record)}: no {name}")
    return every[place.choice(name, len(every))]


def shown(record: Record, name: str) -> tuple[Picture, ...]:
    """A field's pictures, or with ``""`` the record's."""
    return flatten(record.fields.get(name, ())) if name else record.pictures


def one_picture(record: Record, name: str) -> Picture:
    """A field's only picture, or with ``""`` the record's first.

    Raises:
      UnreadableRecord: there is none, or several.
    """
    found = shown(record, name)
    if len(found) == 0 or (name and len(found) > 1):
        raise UnreadableRecord(
            f"{label(record)}: {len(found)} pictures{name and f' in {name}'}, expected one to be drawn"
        )
    return found[0]


def converse(record: Record, name: str, pictures: Sequence[Picture]) -> tuple[Turn, ...]:
    """A field's conversation.

    Raises:
      UnreadableRecord: it is missing or has another form; the message names the record.
    """
    with naming(f"{label(record)}: {name}"):
        return read_turns(record.fields.get(name), pictures)
