"""Finds items, texts and the background of a picture by classical image analysis."""

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.score.colour_regions import Region, around, colour_regions, cover_of, nearest_name
from mammoth_jax.data.synthetic.score.findings import Finding, FoundItem
from mammoth_jax.data.synthetic.score.ground import Ground, find_ground
from mammoth_jax.data.synthetic.score.shape_fit import Patch, best_fits

_LEAST_AREA = 24.0
_MARGIN = 4
_MOST_ERROR = 0.35


def find(picture: UInt8[np.ndarray, "height width 3"]) -> Finding:
    """All items and texts of a picture, and its background."""
    height, width, _ = picture.shape
    pixels = picture.astype(float)
    ground = find_ground(pixels)
    regions = colour_regions(pixels, ground)
    scale = max(1.0, min(height, width) / 64)
    large = [region for region in regions if len(region.pixels) >= _LEAST_AREA * scale**2]
    items = []
    for region in large:
        patch = _patch(region, large, pixels, ground, scale)
        fits = best_fits(patch)
        if fits and fits[0].error < _MOST_ERROR:
            fit = fits[0]
            items.append(
                FoundItem(
                    fit.shape,
                    nearest_name(region.colour),
                    fit.centre,
                    fit.box,
                    float(patch.cover.sum()),
                    1 - fit.error / _MOST_ERROR,
                )
            )
    return Finding(height, width, ground.found, tuple(items), ())


def _patch(region: Region, regions: list[Region], picture: np.ndarray, ground: Ground, scale: float) -> Patch:
    height, width, _ = picture.shape
    left, top, right, bottom = region.box
    margin = int(_MARGIN * scale) + (max(right - left, bottom - top)) // 4
    rows = slice(max(top - margin, 0), min(bottom + margin, height))
    columns = slice(max(left - margin, 0), min(right + margin, width))
    cover, _ = cover_of(picture[rows, columns], ground.colours[rows, columns], region.colour)
    cover = np.minimum(cover, 1.0) * around(region, height, width, 2)[rows, columns]
    weight = np.ones_like(cover)
    for other in regions:
        if other is not region:
            weight[other.mask(height, width)[rows, columns]] = 0.0
    return Patch(cover * weight, weight, rows.start, columns.start)
