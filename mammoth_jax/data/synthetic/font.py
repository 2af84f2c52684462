"""A font of capitals and digits, drawn as strokes, so that letters are the same everywhere and at every height.

A glyph is a few polylines on a grid of 4 by 6 units, y down.  The stroke's middle runs on the grid; corners are cut
where a letter is round.  Letters and digits that look alike differ by a feature: zero has a slash, one no foot, I has
bars.  Capitals only: at nine pixels the lower case has too few pixels to tell all letters apart.
"""

import functools
import math

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.shapes import coverage

_STROKES: dict[str, str] = {
    "A": "0,6 0,2 2,0 4,2 4,6|0,3.6 4,3.6",
    "B": "0,0 3,0 3.9,0.8 3.9,2 3,2.8 0,2.8|3,2.8 4,3.7 4,5.1 3,6 0,6 0,0",
    "C": "4,1.2 2.9,0 1.2,0 0,1.4 0,4.6 1.2,6 2.9,6 4,4.8",
    "D": "0,0 2.3,0 4,1.7 4,4.3 2.3,6 0,6 0,0",
    "E": "4,0 0,0 0,6 4,6|0,3 3,3",
    "F": "4,0 0,0 0,6|0,3 3,3",
    "G": "4,1.2 2.9,0 1.2,0 0,1.4 0,4.6 1.2,6 4,6 4,3.3 2.3,3.3",
    "H": "0,0 0,6|4,0 4,6|0,3 4,3",
    "I": "0.6,0 3.4,0|2,0 2,6|0.6,6 3.4,6",
    "J": "1.4,0 4,0 4,4.8 2.9,6 1.2,6 0,4.8",
    "K": "0,0 0,6|4,0 0.3,3.2|1.3,2.5 4,6",
    "L": "0,0 0,6 4,6",
    "M": "0,6 0,0 2,2.6 4,0 4,6",
    "N": "0,6 0,0 4,6 4,0",
    "O": "1.2,0 2.8,0 4,1.4 4,4.6 2.8,6 1.2,6 0,4.6 0,1.4 1.2,0",
    "P": "0,6 0,0 3,0 4,0.9 4,2.5 3,3.4 0,3.4",
    "Q": "1.2,0 2.8,0 4,1.4 4,4.6 2.8,6 1.2,6 0,4.6 0,1.4 1.2,0|2.2,4 4,6",
    "R": "0,6 0,0 3,0 4,0.9 4,2.4 3,3.2 0,3.2|2,3.2 4,6",
    "S": "4,1.1 2.9,0 1.1,0 0,1 0,2 1,2.9 3,3.1 4,4 4,5 2.9,6 1.1,6 0,4.9",
    "T": "0,0 4,0|2,0 2,6",
    "U": "0,0 0,4.7 1.2,6 2.8,6 4,4.7 4,0",
    "V": "0,0 2,6 4,0",
    "W": "0,0 0.7,6 2,3 3.3,6 4,0",
    "X": "0,0 4,6|4,0 0,6",
    "Y": "0,0 2,3 4,0|2,3 2,6",
    "Z": "0,0 4,0 0,6 4,6",
    "0": "1.2,0 2.8,0 4,1.4 4,4.6 2.8,6 1.2,6 0,4.6 0,1.4 1.2,0|3.2,1.4 0.8,4.6",
    "1": "0.7,1.5 2.2,0 2.2,6",
    "2": "0,1.3 1.1,0 2.9,0 4,1.1 4,2.2 0,6 4,6",
    "3": "0,0 4,0 2,2.4 3,2.5 4,3.5 4,5 2.9,6 1.1,6 0,5",
    "4": "3,6 3,0 0,4.2 4,4.2",
    "5": "4,0 0.3,0 0.3,2.6 2.8,2.5 4,3.5 4,5 2.9,6 1.1,6 0,5",
    "6": "3.4,0 1.6,0.4 0,2.6 0,4.8 1.1,6 2.9,6 4,5 4,3.7 2.9,2.8 0.4,2.9",
    "7": "0,0 4,0 1.3,6",
    "8": "1.1,0 2.9,0 3.8,0.8 3.8,2 2.8,2.8 1.2,2.8 0,3.8 0,5.1 1.1,6 2.9,6 4,5.1 4,3.8 2.8,2.8"
    "|1.2,2.8 0.2,2 0.2,0.8 1.1,0",
    "9": "4,2.6 2.9,3.3 1.1,3.3 0,2.3 0,1 1.1,0 2.9,0 4,1.2 4,3.4 2.4,5.6 0.6,6",
}

GLYPHS: tuple[str, ...] = tuple(_STROKES)
_UNITS_WIDE, _UNITS_HIGH = 4, 6


def glyph_width(height: int) -> int:
    """Width in pixels of every glyph at a letter height."""
    return max(1, (2 * height + 1) // 3)


def glyph_gap(height: int) -> int:
    """Empty columns between two glyphs."""
    return max(1, (2 * height + 5) // 11)


def text_width(length: int, height: int) -> int:
    """Width in pixels of a text of so many letters."""
    return length * glyph_width(height) + (length - 1) * glyph_gap(height)


@functools.lru_cache(maxsize=4096)
def glyph(letter: str, height: int) -> UInt8[np.ndarray, "rows cols"]:
    """Coverage of the pixels by a letter, 0 to 255.  The result is shared: do not write to it."""
    width = glyph_width(height)
    pen = max(1.4, height / 6.5)
    right, down = (width - pen) / _UNITS_WIDE, (height - pen) / _UNITS_HIGH
    x = (np.arange(width) + 0.5)[None, :]
    y = (np.arange(height) + 0.5)[:, None]
    nearest = np.full((height, width), math.inf)
    for line in _STROKES[letter].split("|"):
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        points = [(pen / 2 + right * px, pen / 2 + down * py) for px, py in points]
        for start, end in zip(points, points[1:], strict=False):
            nearest = np.minimum(nearest, _to_segment(x, y, start, end))
    out = coverage(nearest - pen / 2)
    out.flags.writeable = False
    return out


def _to_segment(x, y, start, end):
    """Distance of points to a segment."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = np.clip(along, 0.0, 1.0)
    across_x, across_y = x - start[0] - along * dx, y - start[1] - along * dy
    return np.sqrt(across_x * across_x + across_y * across_y)


def text_mask(content: str, height: int) -> UInt8[np.ndarray, "rows cols"]:
    """Coverage of the pixels of a text's box."""
    width, step = glyph_width(height), glyph_width(height) + glyph_gap(height)
    out = np.zeros((height, text_width(len(content), height)), np.uint8)
    for number, letter in enumerate(content):
        out[:, number * step : number * step + width] = glyph(letter, height)
    return out
