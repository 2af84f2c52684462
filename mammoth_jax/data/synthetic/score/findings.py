"""What was found in a picture: items, texts and the background, measured and named."""

import dataclasses
from typing import Literal

from mammoth_jax.data.synthetic.scene import Background, Box
from mammoth_jax.data.synthetic.vocabulary import BackgroundColour, Colour, Shape

_SLACK = 0.75  # in a picture of 64

BackgroundKind = Literal["plain", "gradient", "stripes", "checks", "noise"]


@dataclasses.dataclass(frozen=True)
class FoundItem:
    """A shape that is seen.

    Attributes:
        shape: the one of the ten that fits best.
        colour: the named colour nearest to what is seen; that of a background where the item has none of the ten.
        centre: x and y of the middle of the whole shape's box, covered parts included, in pixels.
        box: the whole shape's box, in pixels.
        pixels: visible area, in pixels.
        confidence: 1 for a perfect fit, 0 for one at the limit of what counts as a shape at all.
    """

    shape: Shape
    colour: Colour | BackgroundColour
    centre: tuple[float, float]
    box: Box
    pixels: float
    confidence: float


@dataclasses.dataclass(frozen=True)
class FoundText:
    """Letters in a row; ``?`` for what stands in the row and is no letter.  ``box`` is that of the letters."""

    text: str
    colour: Colour | BackgroundColour
    box: Box


@dataclasses.dataclass(frozen=True)
class FoundBackground:
    """One colour where the background is plain, else two, in the vocabulary's order."""

    kind: BackgroundKind
    colours: tuple[BackgroundColour, ...]


@dataclasses.dataclass(frozen=True)
class Finding:
    """All that is seen in a picture.

    Attributes:
        height, width: of the picture.
        background: None where most of the picture has no colour of one.
        items, texts: what has a name.
        leftovers: boxes of what else stands out and is as large as an item may be, largest first.
    """

    height: int
    width: int
    background: FoundBackground | None
    items: tuple[FoundItem, ...]
    texts: tuple[FoundText, ...]
    leftovers: tuple[Box, ...] = ()

    @property
    def slack(self) -> float:
        """Pixels that a centre which was measured may be off."""
        return _SLACK * max(1.0, min(self.height, self.width) / 64)


def kind_of(background: Background) -> BackgroundKind:
    """The kind of a scene's background, as a finding names it."""
    kinds: dict[str, BackgroundKind] = {
        "Plain": "plain",
        "Gradient": "gradient",
        "Stripes": "stripes",
        "Checks": "checks",
        "Noise": "noise",
    }
    return kinds[type(background).__name__]
