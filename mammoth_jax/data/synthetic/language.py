"""What the tasks ask of a language: names of things, and the few constructions that all texts are made of.

:mod:`english` and :mod:`chinese` are the two languages.  One of them is chosen by :func:`speaker`, which also draws the
speaker's habits (with or without a full stop, which word of several), so that a text is consistent in itself.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from mammoth_jax.data.synthetic.chinese import Chinese
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.english import English
from mammoth_jax.data.synthetic.relations import Place, Relation
from mammoth_jax.data.synthetic.scene import Background
from mammoth_jax.data.synthetic.vocabulary import BackgroundColour, Colour, Shape

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


class Speaker(Protocol):
    """One language, spoken with certain habits."""

    @property
    def language(self) -> Language:
        """Which language it is."""
        ...

    def one(self, shape: Shape, colour: Colour | None = None) -> str:
        """A thing without article or number: ``red circle``."""
        ...

    def some(self, count: int, shape: Shape, colour: Colour | None = None) -> str:
        """So many things: ``a red circle``, ``three red circles``."""
        ...

    def the(self, shape: Shape, colour: Colour | None = None) -> str:
        """A thing that is known: ``the red circle``."""
        ...

    def many(self, shape: Shape, colour: Colour | None = None) -> str:
        """Any number of things: ``red circles``."""
        ...

    def number(self, value: int) -> str:
        """A number from zero to twelve in words."""
        ...

    def counting(self, value: int) -> str:
        """A number of things, as it stands before them: ``two``, ``两个``."""
        ...

    def colour(self, colour: Colour | BackgroundColour) -> str:
        """A colour's name."""
        ...

    def ground(self, background: Background) -> str:
        """What a background is: ``mint``, ``gray and silver stripes``."""
        ...

    def written(self, content: str, colour: Colour | None = None) -> str:
        """A text in the picture: ``the word "CAT" in red``."""
        ...

    def quoted(self, content: str) -> str:
        """A text's letters in quotation marks."""
        ...

    def related(self, first: str, relation: Relation, second: str) -> str:
        """A thing beside another: ``a circle left of a square``."""
        ...

    def beside(self, relation: Relation, other: str) -> str:
        """Where something is: ``left of a square``."""
        ...

    def named(self, shape: Shape) -> str:
        """What a thing is, as an answer: ``a circle``, ``圆形``."""
        ...

    def relation(self, relation: Relation) -> str:
        """Where something is, as an answer: ``left``, ``above``."""
        ...

    def place(self, place: Place) -> str:
        """A part of the picture: ``the top left``."""
        ...

    def joined(self, parts: Sequence[str]) -> str:
        """``a, b and c``."""
        ...

    def sentence(self, text: str) -> str:
        """A text as this speaker begins and ends it."""
        ...


def speaker(language: Language, draws: Draws) -> Speaker:
    """A speaker of a language, with habits by chance."""
    return English.drawn(draws) if language == "en" else Chinese.drawn(draws)
