"""English."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.relations import Place, Relation
from mammoth_jax.data.synthetic.scene import Background, Checks, Gradient, Noise, Plain, Stripes
from mammoth_jax.data.synthetic.vocabulary import BackgroundColour, Colour, Shape

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_SIDES: dict[Relation, tuple[str, str]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "above"),
    "below": ("below", "under"),
}
_ANSWERS: dict[Relation, str] = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


def plural(noun: str) -> str:
    """``circles``, ``crosses``."""
    return noun + ("es" if noun.endswith("s") else "s")


def with_article(noun: str) -> str:
    """``a circle``, ``an arrow``."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


@dataclasses.dataclass(frozen=True)
class English:
    """A speaker of English.

    ``formal``: capitals and full stops; ``wording``: which of two words for the same relation; ``text_word``: what a
    text in a picture is called, or None for ``word`` or ``number`` as it is.
    """

    formal: bool = False
    wording: int = 0
    text_word: str | None = None
    language: Literal["en"] = "en"

    @classmethod
    def drawn(cls, draws: Draws) -> "English":
        """A speaker by chance."""
        return cls(draws.chance(0.3), draws.below(2), "text" if draws.chance(0.25) else None)

    def one(self, shape: Shape, colour: Colour | None = None) -> str:
        return f"{colour} {shape}" if colour else shape

    def some(self, count: int, shape: Shape, colour: Colour | None = None) -> str:
        if count == 1:
            return with_article(self.one(shape, colour))
        return f"{self.counting(count)} {self.many(shape, colour)}"

    def named(self, shape: Shape) -> str:
        return self.some(1, shape)

    def the(self, shape: Shape, colour: Colour | None = None) -> str:
        return f"the {self.one(shape, colour)}"

    def many(self, shape: Shape, colour: Colour | None = None) -> str:
        return plural(self.one(shape, colour))

    def number(self, value: int) -> str:
        return NUMBERS[value]

    def counting(self, value: int) -> str:
        return NUMBERS[value]

    def colour(self, colour: Colour | BackgroundColour) -> str:
        return colour

    def ground(self, background: Background) -> str:
        match background:
            case Plain(colour):
                return colour
            case Gradient(colour, second):
                return f"a gradient from {colour} to {second}"
            case Stripes(colour, second):
                return f"{colour} and {second} stripes"
            case Checks(colour, second):
                return f"{colour} and {second} checks"
            case Noise(colour, second):
                return f"{colour} and {second} clouds"

    def written(self, content: str, colour: Colour | None = None) -> str:
        kind = self.text_word or ("number" if content.isdigit() else "word")
        return f"the {kind} {self.quoted(content)}" + (f" in {colour}" if colour else "")

    def quoted(self, content: str) -> str:
        return f'"{content}"'

    def related(self, first: str, relation: Relation, second: str) -> str:
        return f"{first} {self.beside(relation, second)}"

    def beside(self, relation: Relation, other: str) -> str:
        return f"{_SIDES[relation][self.wording]} {other}"

    def relation(self, relation: Relation) -> str:
        return _ANSWERS[relation]

    def place(self, place: Place) -> str:
        return f"the {place}"

    def joined(self, parts: Sequence[str]) -> str:
        *most, last = parts
        return f"{', '.join(most)} and {last}" if most else last

    def sentence(self, text: str) -> str:
        if not self.formal:
            return text
        return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")
