"""Backgrounds: what may stand beside what, and the pixels."""

import functools

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.scene import Background, Checks, Gradient, Noise, Plain, Stripes
from mammoth_jax.data.synthetic.vocabulary import (
    BACKGROUND_COLOURS,
    COLOURS,
    RGB,
    BackgroundColour,
    Colour,
    luminance,
)

_FARTHEST_PARTNER = 110.0
_FARTHEST_IN_TEXTURE = 80.0
_NEAREST_ITEM = 75.0
_LUMINANCE_STEP = 70.0


def _squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - b) ** 2).sum())


def _may_mix(first: str, second: str, farthest: float) -> bool:
    """Whether two colours make a background: close enough to be a quiet one, all mixtures far from every item's."""
    a, b = np.array(RGB[first], float), np.array(RGB[second], float)
    if first == second or _squared(a, b) > farthest**2:
        return False
    mixtures = [a + (b - a) * step / 16 for step in range(17)]
    return all(
        _squared(m, np.array(RGB[item], float)) >= _NEAREST_ITEM**2 for m in mixtures for item in COLOURS
    )


def _partners(farthest: float) -> dict[str, tuple[BackgroundColour, ...]]:
    return {
        first: tuple(second for second in BACKGROUND_COLOURS if _may_mix(first, second, farthest))
        for first in BACKGROUND_COLOURS
    }


SOFT_PARTNERS = _partners(_FARTHEST_PARTNER)
"""The second colours that may stand beside each colour of a gradient or of soft noise."""

TEXTURE_PARTNERS = _partners(_FARTHEST_IN_TEXTURE)
"""The same for stripes and checks, whose hard edges must stay quieter than an item's.  Some colours have none."""


def colours_of(background: Background) -> tuple[BackgroundColour, ...]:
    """The one or two colours of a background."""
    match background:
        case Plain(colour):
            return (colour,)
        case (
            Gradient(colour, second)
            | Stripes(colour, second)
            | Checks(colour, second)
            | Noise(colour, second)
        ):
            return colour, second


def legible_colours(background: Background) -> tuple[Colour, ...]:
    """Colours of letters that stand out by brightness from every colour of a background."""
    return _legible(colours_of(background))


@functools.cache
def _legible(colours: tuple[str, ...]) -> tuple[Colour, ...]:
    return tuple(
        letter
        for letter in COLOURS
        if all(abs(luminance(letter) - luminance(colour)) >= _LUMINANCE_STEP for colour in colours)
    )


def draw_background(background: Background, height: int, width: int) -> UInt8[np.ndarray, "rows cols 3"]:
    """The pixels of a background."""
    out = np.empty((height, width, 3), np.uint8)
    first = np.array(RGB[background.colour], np.int32)
    if isinstance(background, Plain):
        out[:] = first.astype(np.uint8)
        return out
    share = _second_share(background, height, width)
    step = np.array(RGB[background.second], np.int32) - first
    # Colours of all 256 mixtures are looked up, which is faster than mixing every pixel.
    table = (first + (np.arange(256, dtype=np.int32)[:, None] * step + 127) // 255).astype(np.uint8)
    np.take(table, share, axis=0, out=out)
    return out


def _second_share(
    background: Gradient | Stripes | Checks | Noise, height: int, width: int
) -> UInt8[np.ndarray, "rows cols"]:
    """How much of the second colour each pixel has, 0 to 255."""
    columns, rows = np.arange(width)[None, :], np.arange(height)[:, None]
    match background:
        case Gradient(direction=direction):
            along = {"right": columns, "down": rows, "diagonal": columns + rows}[direction]
            last = {"right": width, "down": height, "diagonal": width + height - 1}[direction] - 1
            share = along * 255 // max(last, 1)
        case Stripes(direction=direction, width=band):
            along = {"right": columns, "down": rows, "diagonal": columns + rows}[direction]
            share = along // band % 2 * 255
        case Checks(width=side):
            share = (columns // side + rows // side) % 2 * 255
        case Noise(width=side, seed=seed):
            return _soft_noise(seed, side, height, width)
    return np.broadcast_to(share, (height, width)).astype(np.uint8)


def _soft_noise(seed: int, side: int, height: int, width: int) -> UInt8[np.ndarray, "rows cols"]:
    """Bilinear interpolation of random bytes on a lattice, in integers."""
    lattice_rows, lattice_columns = (height - 1) // side + 2, (width - 1) // side + 2
    draws = Draws(seed, stream=0, index=0)
    lattice = np.array([draws.word() >> 56 for _ in range(lattice_rows * lattice_columns)], np.int32).reshape(
        lattice_rows, lattice_columns
    )
    row, down = np.divmod(np.arange(height, dtype=np.int32), side)
    column, right = np.divmod(np.arange(width, dtype=np.int32), side)
    by_row = lattice[row] * (side - down)[:, None] + lattice[row + 1] * down[:, None]
    mixed = by_row[:, column] * (side - right) + by_row[:, column + 1] * right
    return (mixed // (side * side)).astype(np.uint8)
