"""Reads letters in a row, by laying the font over them: no list of words, every letter by itself.

All letters of a text have one height, which says how wide they are and how far apart; so a text is a height, a place
and a number of letters.  The gain of a letter at a place is the power of what is seen there less what the best letter
leaves unexplained; the text of the largest gain is read.
"""

import dataclasses
import functools

import numpy as np

from mammoth_jax.core.types import Float
from mammoth_jax.data.synthetic import font
from mammoth_jax.data.synthetic.scene import Box
from mammoth_jax.data.synthetic.score.smoothing import smoothed

_BLURS = (0.2, 0.7, 1.1)  # standard deviations in pixels, for letters of 14 pixels or less
_UNEXPLAINED = 0.45  # of a letter's power; a letter of which more is left over adds nothing
_READABLE = 0.6  # what is left of a letter's power where it is still that letter
_ASIDE = 0.04  # of a letter's power, lost for each pixel that it stands aside
_LEAST_GAIN = 0.25  # of the power of the whole text


@dataclasses.dataclass(frozen=True)
class TextFit:
    """Letters laid over a window.

    ``error`` is as that of a shape: the squared difference over the mean of the squares, within the letters' cells.
    """

    text: str
    box: Box
    error: float


def read_line(
    cover: Float[np.ndarray, "rows cols"], least: int, most: int, longest: int = 8
) -> TextFit | None:
    """The text of the largest gain in a window, or None: letters from ``least`` to ``most`` pixels high.

    The box is that of the letters, in pixels of the window.
    """
    best: tuple[float, TextFit] | None = None
    for height in range(least, most + 1):
        if cover.shape[0] < height + 2 or cover.shape[1] < font.glyph_width(height) + 2:
            break
        windows = np.lib.stride_tricks.sliding_window_view(cover, (height + 2, font.glyph_width(height) + 2))
        places = windows.shape[:2]
        flat = windows.reshape(places[0] * places[1], -1)
        power = (flat**2).sum(1)
        for blur in _BLURS:
            found = _best_of_height(flat, power, places, height, blur * max(1.0, height / 14), longest)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
    return None if best is None else best[1]


@functools.lru_cache(maxsize=256)
def _templates(height: int, blur: float) -> Float[np.ndarray, "glyphs pixels"]:
    """All letters of a height with a pixel of margin, a row each, 0 to 1."""
    masks = [np.pad(font.glyph(letter, height) / 255.0, 3) for letter in font.GLYPHS]
    return np.stack([smoothed(mask, blur)[2:-2, 2:-2].ravel() for mask in masks])


def _best_of_height(
    flat: Float[np.ndarray, "places pixels"],
    power: Float[np.ndarray, " places"],
    places: tuple[int, int],
    height: int,
    blur: float,
    longest: int,
) -> tuple[float, TextFit] | None:
    """The best text of a height; ``flat`` are the windows of a letter's size, ``places`` their rows and columns."""
    width, step = font.glyph_width(height), font.glyph_width(height) + font.glyph_gap(height)
    rows, columns = places
    templates = _templates(height, blur)
    own = (templates**2).sum(1)
    left_over = power[:, None] - 2 * flat @ templates.T + own
    letters = left_over.argmin(1)
    least = left_over[np.arange(len(letters)), letters]
    mean = (power + own[letters]) / 2
    gain = (mean - least / _UNEXPLAINED).reshape(rows, columns)
    row, column, number, total = _best_line(gain, step, longest, float(own.mean()))
    if number == 0:
        return None
    cells = [_best_aside(gain, row, column + n * step, float(own.mean()))[1] for n in range(number)]
    least, mean, letters = (a.reshape(rows, columns) for a in (least, mean, letters))
    text = "".join(
        font.GLYPHS[letters[cell]] if least[cell] < _READABLE * mean[cell] else "?" for cell in cells
    )
    seen = sum(float(mean[cell]) for cell in cells)
    error = sum(float(least[cell]) for cell in cells) / max(seen, 1e-6)
    if total < _LEAST_GAIN * seen:
        return None
    left, top = cells[0][1] + 1, row + 1
    right = cells[-1][1] + 1 + width
    return total, TextFit(text, (float(left), float(top), float(right), float(top + height)), error)


def _best_aside(
    gain: Float[np.ndarray, "rows cols"], row: int, column: int, usual: float
) -> tuple[float, tuple[int, int]]:
    """The largest gain of a letter that stands at a place or a pixel beside it, and where."""
    rows, columns = gain.shape
    best, where = -np.inf, (row, column)
    for r in range(max(row - 1, 0), min(row + 2, rows)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            value = float(gain[r, c]) - _ASIDE * usual * (abs(r - row) + abs(c - column))
            if value > best:
                best, where = value, (r, c)
    return best, where


def _best_line(
    gain: Float[np.ndarray, "rows cols"], step: int, longest: int, usual: float
) -> tuple[int, int, int, float]:
    """Row, column and number of letters of the text with the largest gain, and that gain."""
    rows, columns = gain.shape
    padded = np.pad(gain, 1, constant_values=-1e9)
    best_near = np.full_like(gain, -1e9)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            lost = _ASIDE * usual * (abs(down - 1) + abs(right - 1))
            best_near = np.maximum(best_near, padded[down : down + rows, right : right + columns] - lost)
    best = (0, 0, 0, 0.0)
    total = np.zeros_like(gain)
    for number in range(1, longest + 1):
        shift = (number - 1) * step
        if shift >= columns:
            break
        total = total[:, : columns - shift] + best_near[:, shift:]
        place = int(total.argmax())
        row, column = divmod(place, total.shape[1])
        if total[row, column] > best[3]:
            best = row, column, number, float(total[row, column])
    return best
