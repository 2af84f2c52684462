"""Finds items, texts and the background of a picture by classical image analysis.

First the background; what stands out from it falls into regions of one colour.  Over every region all shapes are laid,
and over regions in a row the letters of the font; what fits better is what is there.
"""

from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.types import Bool, Float, UInt8
from mammoth_jax.data.synthetic.scene import Box
from mammoth_jax.data.synthetic.score.colour_regions import (
    Region,
    around,
    colour_regions,
    cover_of,
    nearest_name,
)
from mammoth_jax.data.synthetic.score.findings import Finding, FoundItem, FoundText
from mammoth_jax.data.synthetic.score.ground import Ground, find_ground
from mammoth_jax.data.synthetic.score.lines import Line, lines
from mammoth_jax.data.synthetic.score.shape_fit import Patch, ShapeFit, best_fits
from mammoth_jax.data.synthetic.score.smoothing import covered, grown
from mammoth_jax.data.synthetic.score.smoothing import regions as named_regions
from mammoth_jax.data.synthetic.score.touching import parted

_LEAST_AREA = 24.0  # pixels of an item in a picture of 64
_LEAST_STROKE = 4.0  # pixels of what may be part of a letter
_MARGIN = 4.0
_MOST_ERROR = 0.35  # of a shape
_LEAST_SIZE = 8.5  # pixels in a picture of 64; the world's items have twelve at least
_LEAST_SEEN = 0.68  # of a shape, measured; the world's items are seen to three quarters at least
_MOST_TEXT_ERROR = 0.5
_MOST_LETTER_ERROR = 0.15  # of a text of one letter, which almost anything small looks a little like
_POOR = 0.18  # error of a shape above which a region may be several items that touch
_BETTER = 0.5  # of that error, which each of the parts must be below
_RIM = 2  # pixels around what was found that belong to it
_WHOLE = 0.12  # error of a shape in two shades, at most: more, and nobody would call it one
_CLEAR = 0.08  # error of a shape below which a region is no letter

# Bounds of the work.  A scene of the world has at most six items and two texts of six letters; a picture that is none,
# such as those of a generator that has not learned yet, may fall into hundreds of regions.
_MOST_REGIONS = 18  # over which shapes are laid, the largest ones
_MOST_PARTED = 6  # that may be items that touch, the largest ones


def find(picture: UInt8[np.ndarray, "height width 3"]) -> Finding:
    """All items and texts of a picture, and its background."""
    height, width, _ = picture.shape
    scale = max(1.0, min(height, width) / 64)
    pixels = picture.astype(float)
    ground = find_ground(pixels)
    regions = colour_regions(pixels, ground, _LEAST_STROKE * scale**2)
    large = [region for region in regions if len(region.pixels) >= _LEAST_AREA * scale**2][:_MOST_REGIONS]
    patches = {id(region): _patch(region, large, pixels, ground, scale) for region in large}
    fits = _fits(patches, scale)
    for region in [region for region in large if _error(region, fits) > _POOR][:_MOST_PARTED]:
        parts = parted(region, height, width)
        if len(parts) == 1:
            continue
        with_parts = [*(other for other in large if other is not region), *parts]
        part_patches: dict[int, Patch] = {}
        part_fits: dict[int, ShapeFit] = {}
        for part in sorted(parts, key=lambda part: len(part.pixels)):
            part_patches[id(part)] = _patch(part, with_parts, pixels, ground, scale)
            part_fits |= _fits({id(part): part_patches[id(part)]}, scale)
            if _error(part, part_fits) >= _BETTER * _error(region, fits):
                break
        else:
            large = with_parts
            regions = [*(other for other in regions if other is not region), *parts]
            patches |= part_patches
            fits |= part_fits
    for one, other in _beside(large, fits, height, width):
        rest = [region for region in large if region is not one and region is not other]
        if len(rest) > len(large) - 2:
            continue  # one of them is a part of another shape by now
        both = Region(np.concatenate([one.pixels, other.pixels]), one.colour)
        patch = _patch(both, rest, pixels, ground, scale, (one.colour, other.colour))
        found = _fits({id(both): patch}, scale)
        if _error(both, found) < min(_WHOLE, _BETTER * _error_as_shapes([one, other], fits)):
            large = [*rest, both]
            regions = [*(region for region in regions if region is not one and region is not other), both]
            patches[id(both)] = patch
            fits |= found
    texts = []
    unclear = [r for r in regions if id(r) not in fits or fits[id(r)].error > _CLEAR]
    for line in lines(unclear, pixels, ground, scale):
        members = [unclear[number] for number in line.members]
        most = _MOST_TEXT_ERROR if len(line.fit.text) > 1 else _MOST_LETTER_ERROR
        if line.fit.error < min(most, _error_as_shapes(members, fits)):
            texts.append(_found_text(line))
            for member in members:
                fits.pop(id(member), None)
    items = [
        _found_item(region, fits[id(region)], patches[id(region)])
        for region in large
        if id(region) in fits and fits[id(region)].error < _MOST_ERROR
    ]
    boxes = [found.box for found in (*items, *texts)]
    left = _leftovers(ground.outstanding, boxes, _LEAST_AREA * scale**2)
    return Finding(height, width, ground.found, tuple(items), tuple(texts), left)


def _leftovers(
    outstanding: Bool[np.ndarray, "height width"], boxes: Sequence[Box], least: float
) -> tuple[Box, ...]:
    """Boxes of what stands out and is not in those that are given, largest first: pieces of things, and debris."""
    height, width = outstanding.shape
    left = outstanding & ~covered(height, width, boxes, _RIM)
    pieces = sorted(
        (pixels for _, pixels in named_regions(np.where(left, 0, -1))), key=lambda pixels: -len(pixels)
    )
    corners = [(pixels.min(0), pixels.max(0) + 1) for pixels in pieces if len(pixels) >= least]
    return tuple((float(a[1]), float(a[0]), float(b[1]), float(b[0])) for a, b in corners)


def _beside(
    large: list[Region], fits: dict[int, ShapeFit], height: int, width: int
) -> list[tuple[Region, Region]]:
    """Regions of two colours that touch and may be one shape in two shades, the larger one first."""
    near = {id(region): grown(region.mask(height, width), 1) for region in large}
    pairs = [
        (one, other)
        for number, one in enumerate(large)
        for other in large[number + 1 :]
        if max(_error(one, fits), _error(other, fits)) > _POOR
        and near[id(one)][other.pixels[:, 0], other.pixels[:, 1]].any()
    ]
    ordered = [(a, b) if len(a.pixels) >= len(b.pixels) else (b, a) for a, b in pairs]
    return sorted(ordered, key=lambda pair: -sum(len(region.pixels) for region in pair))[:_MOST_PARTED]


def _fits(patches: dict[int, Patch], scale: float) -> dict[int, ShapeFit]:
    """The best shape of each patch, if it is an item's."""
    found = {name: fits[0] for name, patch in patches.items() if (fits := best_fits(patch))}
    least = _LEAST_SIZE * scale
    return {name: fit for name, fit in found.items() if fit.seen > _LEAST_SEEN and fit.size >= least}


def _error(region: Region, fits: dict[int, ShapeFit]) -> float:
    return fits[id(region)].error if id(region) in fits else 2.0


def _error_as_shapes(members: list[Region], fits: dict[int, ShapeFit]) -> float:
    """The mean error of regions as items; what is too small for an item is not explained by one at all."""
    errors = [(_error(member, fits), len(member.pixels)) for member in members]
    return sum(error * size for error, size in errors) / sum(size for _, size in errors)


def _found_text(line: Line) -> FoundText:
    return FoundText(line.fit.text, line.colour, line.fit.box)


def _found_item(region: Region, fit: ShapeFit, patch: Patch) -> FoundItem:
    confidence = 1 - fit.error / _MOST_ERROR
    name = nearest_name(region.colour)
    return FoundItem(fit.shape, name, fit.centre, fit.box, float(patch.cover.sum()), confidence)


def _patch(
    region: Region,
    regions: list[Region],
    picture: Float[np.ndarray, "height width 3"],
    ground: Ground,
    scale: float,
    colours: Sequence[Float[np.ndarray, "3"]] = (),
) -> Patch:
    """A region with what surrounds it, where an occluded part of its shape may lie; ``colours`` if it has several."""
    height, width, _ = picture.shape
    left, top, right, bottom = region.box
    margin = int(_MARGIN * scale) + max(right - left, bottom - top) // 4
    rows = slice(max(top - margin, 0), min(bottom + margin, height))
    columns = slice(max(left - margin, 0), min(right + margin, width))
    seen, behind = picture[rows, columns], ground.colours[rows, columns]
    covers = [cover_of(seen, behind, colour)[0] for colour in colours or (region.colour,)]
    cover = np.minimum(np.max(covers, axis=0), 1.0) * around(region, height, width, 2)[rows, columns]
    weight = np.ones_like(cover)
    for other in regions:
        if other is not region:
            weight[other.mask(height, width)[rows, columns]] = 0.0
    return Patch((cover * weight).astype(np.float32), weight.astype(np.float32), rows.start, columns.start)
