"""The exact description of a picture: frozen dataclasses, to and from JSON.

Lengths are pixels of the scene's own picture, x to the right and y down.  Items are listed in drawing order, so a later
one covers an earlier one; texts are drawn last.  To edit a scene, replace a part with ``dataclasses.replace`` and pass
the result to :func:`mammoth_jax.data.synthetic.render.with_visible_shares`.
"""

import dataclasses
import json
from typing import Literal

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.vocabulary import BackgroundColour, Colour, Shape

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A coloured shape.

    ``size`` is the longer side of its box; ``visible`` the share of its area that no later item covers.
    """

    shape: Shape
    colour: Colour
    centre: tuple[float, float]
    size: float
    visible: float = 1.0

    @property
    def box(self) -> Box:
        """The box of the whole shape, covered parts included; its middle is the centre."""
        return shapes.box_of(self.shape, self.centre, self.size)


@dataclasses.dataclass(frozen=True)
class Text:
    """A word or a number, in capitals.  ``corner`` is left and top; ``height`` that of the letters."""

    content: str
    colour: Colour
    corner: tuple[int, int]
    height: int

    def __post_init__(self) -> None:
        if not self.content or not set(self.content) <= set(font.GLYPHS):
            raise InputError(f"text {self.content!r}: expected one or more of {''.join(font.GLYPHS)}")

    @property
    def box(self) -> Box:
        """The box of the letters."""
        left, top = map(float, self.corner)
        return left, top, left + font.text_width(len(self.content), self.height), top + self.height


@dataclasses.dataclass(frozen=True)
class Plain:
    """One colour."""

    colour: BackgroundColour


@dataclasses.dataclass(frozen=True)
class Gradient:
    """From ``colour`` to ``second``, evenly: left to right, top to bottom or from the top left corner."""

    colour: BackgroundColour
    second: BackgroundColour
    direction: Literal["right", "down", "diagonal"]


@dataclasses.dataclass(frozen=True)
class Stripes:
    """Bands of ``width`` pixels in turn; ``direction`` is that in which the colours change."""

    colour: BackgroundColour
    second: BackgroundColour
    direction: Literal["right", "down", "diagonal"]
    width: int


@dataclasses.dataclass(frozen=True)
class Checks:
    """Squares of ``width`` pixels in turn, ``colour`` at the top left."""

    colour: BackgroundColour
    second: BackgroundColour
    width: int


@dataclasses.dataclass(frozen=True)
class Noise:
    """Soft noise between two colours: random mixtures on a lattice of ``width`` pixels, interpolated bilinearly."""

    colour: BackgroundColour
    second: BackgroundColour
    width: int
    seed: int


Background = Plain | Gradient | Stripes | Checks | Noise


@dataclasses.dataclass(frozen=True)
class Scene:
    """A whole picture."""

    height: int
    width: int
    background: Background
    items: tuple[Item, ...]
    texts: tuple[Text, ...]


def to_json(scene: Scene) -> str:
    """One line of JSON."""
    return json.dumps(encode(scene))


def from_json(text: str) -> Scene:
    """The inverse of :func:`to_json`.

    Raises:
      InputError: not JSON, or an unknown key, shape, colour or letter.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not the JSON of a scene: {error}") from error
    return decode(Scene, data)
