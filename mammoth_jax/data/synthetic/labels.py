"""A scene as arrays of fixed shape, for networks that learn or are asked to name what is in a picture."""

import numpy as np

from mammoth_jax.core.types import Bool, Int
from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import colours_of
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, SHAPES

GRID = 8


def scene_labels(
    scene: Scene, grid: int = GRID
) -> dict[str, Int[np.ndarray, "..."] | Bool[np.ndarray, "..."]]:
    """The arrays that describe a scene.

    ==================  =================  ====================================================================
    name                shape              content
    ==================  =================  ====================================================================
    shape_count         [shapes]           int32: items of each shape
    shape_colour        [shapes, colours]  bool: an item of that shape and colour is there
    background_colour   [backgrounds]      bool: the one or two colours of the background
    cell_shape          [grid, grid]       int32: shape of the topmost item at the cell's middle, from 1; 0: none
    cell_colour         [grid, grid]       int32: its colour, from 1; 0: none
    ==================  =================  ====================================================================

    Indices are those of ``SHAPES``, ``COLOURS`` and ``BACKGROUND_COLOURS``.  Texts are not items.
    """
    shape_count = np.zeros(len(SHAPES), np.int32)
    shape_colour = np.zeros((len(SHAPES), len(COLOURS)), bool)
    background_colour = np.zeros(len(BACKGROUND_COLOURS), bool)
    cell_shape, cell_colour = np.zeros((grid, grid), np.int32), np.zeros((grid, grid), np.int32)
    for colour in colours_of(scene.background):
        background_colour[BACKGROUND_COLOURS.index(colour)] = True
    x = (np.arange(grid) + 0.5)[None, :] * (scene.width / grid)
    y = (np.arange(grid) + 0.5)[:, None] * (scene.height / grid)
    for item in scene.items:
        shape, colour = SHAPES.index(item.shape), COLOURS.index(item.colour)
        shape_count[shape] += 1
        shape_colour[shape, colour] = True
        inside = shapes.distance(item.shape, item.size, x - item.centre[0], y - item.centre[1]) <= 0
        cell_shape[inside], cell_colour[inside] = shape + 1, colour + 1
    return {
        "shape_count": shape_count,
        "shape_colour": shape_colour,
        "background_colour": background_colour,
        "cell_shape": cell_shape,
        "cell_colour": cell_colour,
    }


def items_of_cells(scene: Scene, grid: int) -> Int[np.ndarray, "grid grid"]:
    """The item that is seen on most of each cell, from 1; 0 where none fills a tenth of it."""
    seen = np.zeros((scene.height, scene.width), np.int64)
    for number, item in enumerate(scene.items, start=1):
        mask, top, left = shapes.mask(item.shape, item.centre, item.size, scene.height, scene.width)
        seen[top : top + mask.shape[0], left : left + mask.shape[1]][mask > 127] = number
    rows = np.arange(scene.height) * grid // scene.height
    columns = np.arange(scene.width) * grid // scene.width
    out = np.zeros((grid, grid), np.int64)
    for row, column in np.ndindex(grid, grid):
        cell = seen[rows == row][:, columns == column]
        items, counts = np.unique(cell[cell > 0], return_counts=True)
        if counts.size and 10 * counts.max() >= cell.size:
            out[row, column] = items[counts.argmax()]
    return out


def letters_of_cells(scene: Scene, grid: int) -> list[list[str]]:
    """The letters whose middle lies in each cell, by row and column, in the order of reading."""
    out = [[""] * grid for _ in range(grid)]
    for text in scene.texts:
        width, (left, top) = font.glyph_width(text.height), text.corner
        row = int(top + text.height / 2) * grid // scene.height
        for number, letter in enumerate(text.content):
            middle = left + number * (width + font.glyph_gap(text.height)) + width / 2
            out[row][int(middle) * grid // scene.width] += letter
    return out
