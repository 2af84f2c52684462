"""What a prompt asks for, exactly: what a scorer reads.

The parts are GenEval's (``include`` with class, count, colour and position) and, beyond them, written words and the
background.
"""

import dataclasses
from typing import Any, Literal

from mammoth_jax.data.synthetic.background import colours_of
from mammoth_jax.data.synthetic.relations import Relation
from mammoth_jax.data.synthetic.scene import Background
from mammoth_jax.data.synthetic.vocabulary import Colour, Shape

Category = Literal[
    "single_object", "two_object", "counting", "colors", "position", "color_attr", "text", "world"
]
"""GenEval's six, by its names; written words; and whole scenes of any kind."""


@dataclasses.dataclass(frozen=True)
class Include:
    """Exactly ``count`` items of a shape; of that colour, if one is given.

    ``position``: the relation that each of them has to those of another part, and that part's number.
    """

    shape: Shape
    count: int = 1
    colour: Colour | None = None
    position: tuple[Relation, int] | None = None


@dataclasses.dataclass(frozen=True)
class Written:
    """A text, letter by letter; in that colour, if one is given."""

    content: str
    colour: Colour | None = None


@dataclasses.dataclass(frozen=True)
class PromptSpec:
    """Everything that a prompt says of a picture.  No items and texts but these are in the scene that it describes."""

    category: Category
    include: tuple[Include, ...] = ()
    texts: tuple[Written, ...] = ()
    background: Background | None = None

    def without_colours(self) -> "PromptSpec":
        """The same without the colours of items; parts that differ in colour alone become one.

        Raises:
          ValueError: a position refers to a part that is no longer alone.
        """
        counts: dict[Shape, int] = {}
        for part in self.include:
            counts[part.shape] = counts.get(part.shape, 0) + part.count
        if len(counts) < len(self.include):
            if any(part.position for part in self.include):
                raise ValueError("parts with positions cannot be merged")
            return dataclasses.replace(self, include=tuple(Include(s, n) for s, n in counts.items()))
        return dataclasses.replace(
            self, include=tuple(dataclasses.replace(part, colour=None) for part in self.include)
        )

    def to_dict(self) -> dict[str, Any]:
        """As a line of GenEval's prompt file has it (``tag``, ``include``, ``exclude``), with ``text`` beside.

        Colours have GenEval's key ``color``.  As there, ``exclude`` is one item more than asked for, when counting.
        """
        include: list[dict[str, Any]] = []
        for part in self.include:
            entry: dict[str, Any] = {"class": part.shape, "count": part.count}
            if part.colour:
                entry["color"] = part.colour
            if part.position:
                entry["position"] = list(part.position)
            include.append(entry)
        out: dict[str, Any] = {"tag": self.category, "include": include}
        if self.category == "counting":
            out["exclude"] = [{"class": part.shape, "count": part.count + 1} for part in self.include]
        if self.texts:
            out["text"] = [
                {"content": text.content} | ({"color": text.colour} if text.colour else {})
                for text in self.texts
            ]
        if self.background:
            kind = type(self.background).__name__.lower()
            out["background"] = {"type": kind, "colors": list(colours_of(self.background))}
        return out
