"""What the world is made of: shapes, colours of items and letters, colours of backgrounds.

A colour word names either an item or a background, never both.  An item's colour lies at least 85 (Euclidean, RGB of
0 to 255) from every other named colour and at least 75 from the mixtures that backgrounds show, so that under mild
noise and blur the nearest colour is the right one.
"""

from typing import Literal, get_args

Shape = Literal[
    "circle", "square", "triangle", "diamond", "cross", "star", "heart", "ring", "crescent", "arrow"
]
Colour = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"
]  # GenEval's ten
BackgroundColour = Literal["gray", "silver", "charcoal", "mint", "sky", "lavender", "beige", "teal", "navy"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
BACKGROUND_COLOURS: tuple[BackgroundColour, ...] = get_args(BackgroundColour)

RGB: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 135, 10),
    "yellow": (250, 225, 30),
    "green": (30, 150, 50),
    "blue": (30, 70, 225),
    "purple": (130, 40, 170),
    "pink": (255, 125, 185),
    "brown": (135, 78, 28),
    "black": (10, 10, 10),
    "white": (252, 252, 252),
    "gray": (128, 128, 128),
    "silver": (188, 190, 194),
    "charcoal": (74, 80, 92),
    "mint": (165, 225, 190),
    "sky": (155, 200, 240),
    "lavender": (200, 178, 232),
    "beige": (228, 208, 168),
    "teal": (20, 130, 138),
    "navy": (20, 25, 95),
}


def luminance(name: str) -> float:
    """Brightness of a named colour, 0 to 255 (Rec. 601 weights)."""
    red, green, blue = RGB[name]
    return (299 * red + 587 * green + 114 * blue) / 1000
