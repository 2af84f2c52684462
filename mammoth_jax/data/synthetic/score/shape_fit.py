"""Which shape a region is: the one whose mask, placed and sized as well as it can be, is most like what is seen."""

import dataclasses
import functools

import numpy as np

from mammoth_jax.core.types import Float
from mammoth_jax.data.synthetic import shapes
from mammoth_jax.data.synthetic.scene import Box
from mammoth_jax.data.synthetic.vocabulary import SHAPES, Shape

_SOFTNESS = (1.0, 1.7, 2.8, 4.5)  # widths of an edge in pixels, from drawn ones to blurred ones
_USUAL = 1.7
_STEPS = (0.6, 0.3)
_FINALISTS = 4
_HOPELESS = 2.5  # times the least error, and a little more, is too far off for a finalist
_NOTHING = 0.65  # error before a shape is moved, above which a region is none; that of items is 0.43 at most
_HIDDEN = 0.1  # what hiding all of a shape behind others adds to the error


@dataclasses.dataclass(frozen=True)
class Patch:
    """A window of a picture.

    Attributes:
        cover: how much of each pixel has the colour in question, 0 to 1.
        weight: 0 where something else may hide it, else 1.
        top: row of the window's first pixel.
        left: its column.
    """

    cover: Float[np.ndarray, "rows cols"]
    weight: Float[np.ndarray, "rows cols"]
    top: int
    left: int


@dataclasses.dataclass(frozen=True)
class ShapeFit:
    """A shape laid over a region.

    ``error`` is the squared difference of both masks over the mean of their squares: 0 where they are the same, 2 where
    they have nothing in common.  ``seen`` is the share of the shape that nothing else may hide.
    """

    shape: Shape
    centre: tuple[float, float]
    size: float
    error: float
    seen: float

    @property
    def box(self) -> Box:
        """The whole shape's box."""
        return shapes.box_of(self.shape, self.centre, self.size)


def best_fits(patch: Patch) -> list[ShapeFit]:
    """The likeliest shapes of a region, best first."""
    rows, columns = np.nonzero(patch.cover > 0.5)
    if not rows.size:
        return []
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    first = [_first(shape, patch, box) for shape in SHAPES]
    first.sort(key=lambda found: found[1])
    if first[0][1] > _NOTHING:
        shape, _, place = first[0]
        return [_at(shape, patch, place, _USUAL)]
    most = _HOPELESS * first[0][1] + 0.03
    fits = [_refined(shape, patch, start) for shape, error, start in first[:_FINALISTS] if error <= most]
    return sorted(fits, key=lambda fit: fit.error)


_Places = Float[np.ndarray, "places 3"]  # x and y of the centre in the window, and the size


def _first(shape: Shape, patch: Patch, box: tuple[int, int, int, int]) -> tuple[Shape, float, _Places]:
    """The best of a few places that follow from the region's area, middle and box."""
    places = np.array([_by_moments(shape, patch), *_by_box(shape, patch, box)])
    places = np.concatenate([places + np.array([0.0, 0.0, more]) for more in (-0.75, 0.0, 0.75)])
    errors, _ = _errors(shape, places, patch, _USUAL)
    best = int(errors.argmin())
    return shape, float(errors[best]), places[best : best + 1]


def _by_moments(shape: Shape, patch: Patch) -> tuple[float, float, float]:
    """As large as the region, and with the same middle of its area: exact where nothing is hidden."""
    area, right, down = _moments(shape)
    total = float(patch.cover.sum())
    size = float(np.sqrt(total / area))
    x = float((patch.cover.sum(0) @ (np.arange(patch.cover.shape[1]) + 0.5)) / total)
    y = float((patch.cover.sum(1) @ (np.arange(patch.cover.shape[0]) + 0.5)) / total)
    return x - right * size, y - down * size, size


def _by_box(shape: Shape, patch: Patch, box: tuple[int, int, int, int]) -> list[tuple[float, float, float]]:
    """As wide or as high as the region's box, at each of its sides; where a side is hidden another one is not."""
    left, top, right, bottom = map(float, box)
    wide, high = shapes.EXTENT[shape]
    places = []
    for size in {(right - left) / wide, (bottom - top) / high}:
        half_width, half_height = size * wide / 2, size * high / 2
        for x in {left + half_width, right - half_width}:
            for y in {top + half_height, bottom - half_height}:
                places.append((x, y, size))
    return places


@functools.cache
def _moments(shape: Shape) -> tuple[float, float, float]:
    """Area of a shape of size one, and its middle from the box's."""
    grid = (np.arange(256) + 0.5) / 256 - 0.5
    inside = shapes.distance(shape, 1.0, grid[None, :], grid[:, None]) < 0
    count = inside.sum()
    return float(count) / 256**2, float(inside.sum(0) @ grid / count), float(inside.sum(1) @ grid / count)


_NEIGHBOURS = np.array([(x, y, s) for x in (-1, 0, 1) for y in (-1, 0, 1) for s in (-1, 0, 1)], float)


def _refined(shape: Shape, patch: Patch, place: _Places) -> ShapeFit:
    """Moves and resizes a shape step by step while that makes it more like the region."""
    softness = _USUAL
    best = np.inf
    for step in _STEPS:
        for _ in range(4):
            places = place + step * _NEIGHBOURS
            errors, _ = _errors(shape, places, patch, softness)
            number = int(errors.argmin())
            if errors[number] >= best - 1e-6:
                break
            best, place = float(errors[number]), places[number : number + 1]
        if step == _STEPS[0]:
            found = [float(_errors(shape, place, patch, soft)[0][0]) for soft in _SOFTNESS]
            best, softness = min(zip(found, _SOFTNESS, strict=True))
    return _at(shape, patch, place, softness)


def _at(shape: Shape, patch: Patch, place: _Places, softness: float) -> ShapeFit:
    """A shape at one place."""
    errors, seen = _errors(shape, place, patch, softness)
    x, y, size = place[0].tolist()
    return ShapeFit(shape, (x + patch.left, y + patch.top), size, float(errors[0]), float(seen[0]))


def _errors(
    shape: Shape, places: _Places, patch: Patch, softness: float
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
    """The error of a shape at each place, and the share of it that is not hidden."""
    rows, columns = patch.cover.shape
    size = np.maximum(places[:, 2], 2.0)[:, None, None]
    x = ((np.arange(columns) + 0.5 - places[:, :1])[:, None, :] / size).astype(np.float32)
    y = ((np.arange(rows) + 0.5 - places[:, 1:2])[:, :, None] / size).astype(np.float32)
    mask = np.clip(0.5 - shapes.distance(shape, 1.0, x, y) * (size / softness).astype(np.float32), 0.0, 1.0)
    whole = np.maximum(mask.sum((1, 2)), 1e-6)
    mask = mask.reshape(len(places), -1) * patch.weight.ravel()
    cover = (patch.cover * patch.weight).ravel()
    mask_power, cover_power = np.einsum("ij,ij->i", mask, mask), float(cover @ cover)
    difference = mask_power - 2 * mask @ cover + cover_power
    seen = mask.sum(1) / whole
    power = np.maximum((mask_power + cover_power) / 2, 1e-6)
    return np.maximum(difference, 0.0) / power + _HIDDEN * (1 - seen), seen
