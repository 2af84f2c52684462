"""Smoothing and growing of small pictures, and their connected regions."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.types import Bool, Float, Int
from mammoth_jax.data.synthetic.scene import Box


@functools.lru_cache(maxsize=256)
def _weights(length: int, width: float) -> Float[np.ndarray, "length length"]:
    apart = np.arange(length)[:, None] - np.arange(length)[None, :]
    weights = np.exp(-0.5 * (apart / width) ** 2)
    return weights / weights.sum(1, keepdims=True)


def smoothed(
    values: Float[np.ndarray, "height width ..."], width: float
) -> Float[np.ndarray, "height width ..."]:
    """Gaussian means of a standard deviation of ``width`` pixels; at the edges of what is there."""
    down, right = _weights(values.shape[0], width), _weights(values.shape[1], width)
    columns = (down @ values.reshape(len(down), -1)).reshape(*values.shape[:2], -1)
    return np.matmul(right, columns).reshape(values.shape)


def grown(mask: Bool[np.ndarray, "height width"], steps: int) -> Bool[np.ndarray, "height width"]:
    """A mask and all pixels within so many steps, diagonal ones included."""
    for axis in (0, 1):
        grown_along = mask.copy()
        for step in range(1, steps + 1):
            if step >= mask.shape[axis]:
                break
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            grown_along[tuple(ahead)] |= mask[tuple(behind)]
            grown_along[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown_along
    return mask


def covered(
    height: int, width: int, boxes: Sequence[Box], margin: float
) -> Bool[np.ndarray, "{height} {width}"]:
    """The pixels of boxes and ``margin`` around them."""
    out = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        rows = slice(max(math.floor(top - margin), 0), max(math.ceil(bottom + margin), 0))
        columns = slice(max(math.floor(left - margin), 0), max(math.ceil(right + margin), 0))
        out[rows, columns] = True
    return out


def regions(names: Int[np.ndarray, "height width"]) -> list[tuple[int, Int[np.ndarray, "pixels 2"]]]:
    """Connected regions, diagonals included, of pixels with the same name; those named below 0 are left out.

    Returns:
      The name of each region and the row and column of its pixels.
    """
    runs: list[tuple[int, int, int, int]] = []  # row, first column, column after the last, name
    parent: list[int] = []

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    above: list[int] = []
    for row, line in enumerate(names.tolist()):
        here: list[int] = []
        start = beside = 0
        while start < len(line):
            name, stop = line[start], start + 1
            while stop < len(line) and line[stop] == name:
                stop += 1
            if name >= 0:
                number = len(runs)
                runs.append((row, start, stop, name))
                parent.append(number)
                here.append(number)
                while beside < len(above) and runs[above[beside]][2] < start:
                    beside += 1
                for other in above[beside:]:
                    _, first, _, same = runs[other]
                    if first > stop:
                        break
                    if same == name:
                        parent[root(other)] = root(number)
            start = stop
        above = here
    found: dict[int, list[int]] = {}
    for number in range(len(runs)):
        found.setdefault(root(number), []).append(number)
    out = []
    for members in found.values():
        pixels = [(runs[n][0], column) for n in members for column in range(runs[n][1], runs[n][2])]
        out.append((runs[members[0]][3], np.array(pixels)))
    return out
