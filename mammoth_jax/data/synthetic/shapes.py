"""The shapes: their extent, their distance function, and the anti-aliased mask of one in a picture.

Coordinates are pixels, x to the right and y down; pixel (column j, row i) covers [j, j+1) x [i, i+1).  A shape of
size s fills a box whose longer side is s, centred on the shape's centre.  Only operations that IEEE 754 rounds exactly
are used (no sines, no sums over arrays), so that pixels are the same on every platform.
"""

import math

import numpy as np

from mammoth_jax.core.types import Float, UInt8
from mammoth_jax.data.synthetic.vocabulary import Shape

# Width and height of the box, in units of the size.
EXTENT: dict[str, tuple[float, float]] = {
    "circle": (1.0, 1.0),
    "square": (1.0, 1.0),
    "triangle": (1.0, 0.875),
    "diamond": (1.0, 1.0),
    "cross": (1.0, 1.0),
    "star": (1.0, 0.951),
    "heart": (1.0, 0.9),
    "ring": (1.0, 1.0),
    "crescent": (0.801, 1.0),
    "arrow": (0.9, 1.0),
}

# Outward normals of the five lines of a star with a point up (y down), to 15 digits.
_STAR_NORMALS = (
    (0.0, -1.0),
    (0.951056516295154, -0.309016994374947),
    (-0.951056516295154, -0.309016994374947),
    (0.587785252292473, 0.809016994374947),
    (-0.587785252292473, 0.809016994374947),
)
_STAR_INNER = 0.309016994374947  # distance of the lines from the middle, in units of the outer radius
_STAR_RADIUS = 0.525731112119134  # outer radius of a star one unit wide
_STAR_RAISE = 0.0502  # the box's middle lies this far below its top less one radius


def box_of(shape: Shape, centre: tuple[float, float], size: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a whole shape."""
    half_width, half_height = (0.5 * size * side for side in EXTENT[shape])
    x, y = centre
    return x - half_width, y - half_height, x + half_width, y + half_height


def distance(
    shape: Shape, size: float, x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Signed distance in pixels (negative inside) of points relative to the centre; ``x`` and ``y`` broadcast.

    Exact along straight edges and arcs; near a corner it is the distance to the nearer line.
    """
    r = 0.5 * size
    match shape:
        case "circle":
            return np.sqrt(x * x + y * y) - r
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - r
        case "triangle":
            half_height = 0.875 * r
            slope = 2 * half_height / r
            sides = (slope * np.abs(x) - y - half_height) / math.sqrt(1 + slope * slope)
            return np.maximum(sides, y - half_height)
        case "diamond":
            return (np.abs(x) + np.abs(y) - r) * math.sqrt(0.5)
        case "cross":
            along, across = np.abs(x), np.abs(y)
            arm = 0.34 * r
            return np.maximum(np.minimum(along, across) - arm, np.maximum(along, across) - r)
        case "star":
            return _star(size, x, y)
        case "heart":
            return _heart(size, np.abs(x), y)
        case "ring":
            return np.abs(np.sqrt(x * x + y * y) - 0.76 * r) - 0.24 * r
        case "crescent":
            left = x - 0.199 * r
            right = left - 0.55 * r
            square = y * y
            return np.maximum(np.sqrt(left * left + square) - r, 0.8 * r - np.sqrt(right * right + square))
        case "arrow":
            side = np.abs(x)
            slope = 1.05 / 0.9
            head = np.maximum((slope * side - y - r) / math.sqrt(1 + slope * slope), y - 0.05 * r)
            shaft = np.maximum(side - 0.34 * r, np.abs(y - 0.4 * r) - 0.6 * r)
            return np.minimum(head, shaft)
    raise ValueError(f"{shape!r} is not one of {sorted(EXTENT)}")


def _star(size, x, y):
    """Inside a five-pointed star is inside at least four of the five lines through its edges."""
    y = y - _STAR_RAISE * size
    first = second = None
    for nx, ny in _STAR_NORMALS:
        plane = nx * x + ny * y
        if first is None:
            first = plane
        elif second is None:
            first, second = np.maximum(first, plane), np.minimum(first, plane)
        else:
            second = np.maximum(second, np.minimum(first, plane))
            first = np.maximum(first, plane)
    return second - _STAR_INNER * _STAR_RADIUS * size


def _heart(size, side, y):
    """Two discs that touch in the middle, and the wedge between their outer tangents through the tip."""
    across, down = side - 0.25 * size, y + 0.2 * size
    discs = np.sqrt(across * across + down * down) - 0.25 * size
    tangent = 0.7422680412371134 * side + 0.6701030927835051 * (y - 0.45 * size)
    lid = 0.3589790793088691 * side - 0.9333456062030598 * down
    return np.minimum(discs, np.maximum(tangent, lid))


def mask(
    shape: Shape, centre: tuple[float, float], size: float, height: int, width: int
) -> tuple[UInt8[np.ndarray, "rows cols"], int, int]:
    """Coverage of the pixels by a shape, 0 to 255, cut to its box, with the box's top row and left column."""
    left, top, right, bottom = box_of(shape, centre, size)
    first_column, last_column = max(math.floor(left), 0), min(math.ceil(right), width)
    first_row, last_row = max(math.floor(top), 0), min(math.ceil(bottom), height)
    x = np.arange(first_column, last_column) + (0.5 - centre[0])
    y = np.arange(first_row, last_row) + (0.5 - centre[1])
    return coverage(distance(shape, size, x[None, :], y[:, None])), first_row, first_column


def coverage(signed: Float[np.ndarray, "rows cols"]) -> UInt8[np.ndarray, "rows cols"]:
    """Share of a pixel, 0 to 255, behind an edge at a signed distance from the pixel's middle."""
    return np.clip(128.0 - 255.0 * signed, 0.0, 255.0).astype(np.uint8)
