"""Items of one colour that touch: one region, of which each is a part."""

import numpy as np

from mammoth_jax.data.synthetic.score.colour_regions import Region
from mammoth_jax.data.synthetic.score.smoothing import grown, regions

_CORE = 4  # pixels of a part's inside, at least
_PART = 30.0  # pixels of a part in a picture of 64, at least
_DEEPEST = 6
_MOST_PARTS = 6  # as many as the world has items


def parted(region: Region, height: int, width: int) -> list[Region]:
    """A region cut where it is narrow: at the first depth at which its inside falls apart; itself where it does not."""
    scale = max(1.0, min(height, width) / 64)
    left, top, right, bottom = region.box
    inside = np.pad(region.mask(height, width)[top:bottom, left:right], 1)
    for _ in range(round(_DEEPEST * scale)):
        inside = ~grown(~inside, 1)
        cores = [pixels for _, pixels in regions(np.where(inside[1:-1, 1:-1], 0, -1)) if len(pixels) >= _CORE]
        if not cores:
            break
        if len(cores) > _MOST_PARTS:
            break
        if len(cores) > 1:
            pixels = region.pixels - (top, left)
            apart = [np.abs(pixels[:, None] - core[None, :]).max(-1).min(1) for core in cores]
            owner = np.argmin(apart, axis=0)
            parts = [Region(region.pixels[owner == number], region.colour) for number in range(len(cores))]
            if min(len(part.pixels) for part in parts) < _PART * scale**2:
                break
            return parts
    return [region]
