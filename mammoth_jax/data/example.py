"""One sample of any task, before it becomes tokens: what is said in which turn, and what is drawn.

A source yields records as their files have them; a :class:`TaskForm` makes the example out of a record::

    text     a plain document, or a conversation
    it2t     a conversation about pictures
    t2i      one user turn: the caption                               -> target
    edit     one user turn: references, then the instruction          -> target
    a2a      one user turn: references or none, then the request      -> reasoning, target
"""

import dataclasses
import hashlib
from typing import ClassVar, Literal, Protocol

from mammoth_jax.data.record import Picture, Record

Task = Literal["text", "t2i", "edit", "it2t", "a2a"]
DRAWING: tuple[Task, ...] = ("t2i", "edit", "a2a")
"""The tasks whose answer is a picture."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation: text and pictures in their order; only users show pictures."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Picture, ...]

    def __post_init__(self) -> None:
        if self.role != "user" and self.pictures:
            raise ValueError(f"a picture in a turn of the {self.role}: only users show pictures")

    @property
    def text(self) -> str:
        """The turn's texts, one after the other, without its pictures."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The turn's pictures."""
        return tuple(part for part in self.content if isinstance(part, Picture))


@dataclasses.dataclass(frozen=True)
class Example:
    """A sample.  Raises ValueError if its parts do not make one of its task.

    Attributes:
        task: what kind of sample it is.
        turns: the conversation; of a drawing task the one user turn, its pictures (references) before its text.
        document: text of its own, without turns or roles; then ``turns`` is empty.  Only of the task ``text``.
        target: the picture that is drawn, of a drawing task.
        reasoning: what is written before drawing, of ``a2a``.
        key: names the sample in messages: its source and its key there.
    """

    task: Task
    turns: tuple[Turn, ...] = ()
    document: str | None = None
    target: Picture | None = None
    reasoning: str | None = None
    key: str = ""

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise ValueError(f"example {self.key!r} of {self.task}: {wrong}")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of the turns; of a drawing task the references."""
        return tuple(picture for turn in self.turns for picture in turn.pictures)

    def _wrong(self) -> str:
        roles = [turn.role for turn in self.turns]
        if (self.document is None) == (not self.turns):
            return "either a document or turns"
        if self.document is not None and self.task != "text":
            return "a document is text alone"
        if (self.target is not None) != (self.task in DRAWING):
            return f"a target goes with {', '.join(DRAWING)}, and only with them"
        if (self.reasoning is not None) != (self.task == "a2a"):
            return "reasoning goes with a2a, and only with it"
        if self.task not in DRAWING:
            return "" if self.document is not None or "assistant" in roles else "nobody answers"
        content = self.turns[0].content
        if roles != ["user"]:
            return f"turns of {roles}, expected one of the user"
        if any(isinstance(part, str) for part in content[: len(self.pictures)]):
            return "references stand before the text"
        if (self.task == "t2i" and self.pictures) or (self.task == "edit" and not self.pictures):
            return f"{len(self.pictures)} reference pictures"
        return ""


class Filtered(Exception):
    """A record that a filter leaves out, which is no error; loaders count it under its ``reason``."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in the order a sample stands, by name, and the random numbers that follow from that alone.

    The name says seed, source, record and pass, so that a sample is the same whoever reads it, now or after a resume.
    """

    name: str

    def draw(self, purpose: str) -> float:
        """A number in [0, 1) for one purpose (``caption``, ``direction``); another purpose has another number."""
        digest = hashlib.blake2b(f"{self.name}/{purpose}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) / 2**53

    def choice(self, purpose: str, count: int) -> int:
        """A number below ``count``, each as likely."""
        return min(int(self.draw(purpose) * count), count - 1)


class TaskForm(Protocol):
    """How a record of one task is laid out; ``task`` is that of its examples."""

    task: ClassVar[Task]

    def example(self, record: Record, place: Place) -> Example:
        """The sample in a record; where there are several (captions, turns), the one that ``place`` draws.

        Raises:
          UnreadableRecord: a part is missing or empty.
        """
        ...
