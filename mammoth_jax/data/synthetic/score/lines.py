"""Texts among the regions of a picture."""

import dataclasses

import numpy as np

from mammoth_jax.core.types import Bool, Float
from mammoth_jax.data.synthetic.render import boxes_meet
from mammoth_jax.data.synthetic.score.colour_regions import Region, cover_of
from mammoth_jax.data.synthetic.score.ground import Ground
from mammoth_jax.data.synthetic.score.smoothing import grown
from mammoth_jax.data.synthetic.score.text_fit import TextFit, read_line
from mammoth_jax.data.synthetic.vocabulary import COLOURS, RGB, Colour

_HIGHEST = 16.0  # pixels of a letter in a picture of 64
_LETTERS = (8, 15)
_BETWEEN = 8.0  # pixels between the strokes of neighbouring letters
_FULL = 0.55  # the strongest tenth of a text's pixels is covered at least so far
_FAINT = 30_000.0  # what less of it costs, as a squared distance, squared
_TEXTS = 3  # in one row


@dataclasses.dataclass(frozen=True)
class Line:
    """A text that could be read in a picture, with the numbers of the regions that it is made of."""

    fit: TextFit
    colour: Colour
    members: tuple[int, ...]


def lines(
    regions: list[Region], picture: Float[np.ndarray, "height width 3"], ground: Ground, scale: float
) -> list[Line]:
    """Texts that the regions may be, each with a box in the picture."""
    found = []
    for row in _rows(regions, scale):
        left = list(row)
        for _ in range(_TEXTS):
            line = _read(left, regions, picture, ground, scale)
            if line is None or any(boxes_meet(line.fit.box, other.fit.box, -1.0) for other in found):
                break
            found.append(line)
            left = [number for number in left if number not in line.members]
            if not left:
                break
    return found


def _rows(regions: list[Region], scale: float) -> list[list[int]]:
    """Numbers of the regions that stand in a row, near each other, and are not too high for letters."""
    low = [n for n, r in enumerate(regions) if r.box[3] - r.box[1] <= _HIGHEST * scale]
    low.sort(key=lambda n: regions[n].box[0])
    group = {n: n for n in low}
    for position, a in enumerate(low):
        for b in low[position + 1 :]:
            if _in_a_row(regions[a].box, regions[b].box, _BETWEEN * scale):
                old, new = group[b], group[a]
                group = {n: new if g == old else g for n, g in group.items()}
    rows: dict[int, list[int]] = {}
    for number, name in group.items():
        rows.setdefault(name, []).append(number)
    return list(rows.values())


def _in_a_row(a: tuple[int, int, int, int], b: tuple[int, int, int, int], between: float) -> bool:
    shared = min(a[3], b[3]) - max(a[1], b[1])
    apart = max(a[0], b[0]) - min(a[2], b[2])
    return apart <= between and shared >= 0.5 * min(a[3] - a[1], b[3] - b[1])


def _read(
    numbers: list[int],
    regions: list[Region],
    picture: Float[np.ndarray, "height width 3"],
    ground: Ground,
    scale: float,
) -> Line | None:
    """The text of the largest gain that some of the regions make."""
    height, width, _ = picture.shape
    pixels = np.concatenate([regions[n].pixels for n in numbers])
    if len(pixels) < 8 * scale**2:
        return None
    margin = int(3 * scale)
    top, left = np.maximum(pixels.min(0) - margin, 0).tolist()
    bottom, right = (pixels.max(0) + margin + 1).tolist()
    window = (slice(top, bottom), slice(left, right))
    seen, behind = picture[window], ground.colours[window]
    cover = np.zeros(seen.shape[:2])
    for number in numbers:
        mask = regions[number].mask(height, width)
        colour = np.array(RGB[_colour_of(mask, picture, ground)], float)
        mine = np.minimum(cover_of(seen, behind, colour)[0], 1.0) * grown(mask, 1)[window]
        cover = np.maximum(cover, mine)
    around = 3  # so that letters of which an edge is missing fit in
    least, most = (round(h * scale) for h in _LETTERS)
    fit = read_line(np.pad(cover, around), least, most)
    if fit is None:
        return None
    across, down = left - around, top - around
    box = (fit.box[0] + across, fit.box[1] + down, fit.box[2] + across, fit.box[3] + down)
    members = tuple(n for n in numbers if _mostly_in(regions[n], box))
    if not members:
        return None
    mask = np.zeros((height, width), bool)
    for number in members:
        mask |= regions[number].mask(height, width)
    outside = mask[window].copy()
    rows, columns = (
        slice(max(int(low - start) - 1, 0), max(int(high - start) + 1, 0))
        for low, high, start in ((box[1], box[3], top), (box[0], box[2], left))
    )
    outside[rows, columns] = False
    missed = 2 * float((cover[outside] ** 2).sum()) / max(float((cover[mask[window]] ** 2).sum()), 1e-6)
    fit = dataclasses.replace(fit, box=box, error=fit.error + missed)
    return Line(fit, _colour_of(mask, picture, ground), members)


def _mostly_in(region: Region, box: tuple[float, float, float, float]) -> bool:
    rows, columns = region.pixels[:, 0] + 0.5, region.pixels[:, 1] + 0.5
    inside = (columns > box[0] - 1) & (columns < box[2] + 1) & (rows > box[1] - 1) & (rows < box[3] + 1)
    return float(inside.mean()) > 0.5


def _colour_of(
    mask: Bool[np.ndarray, "height width"], picture: Float[np.ndarray, "height width 3"], ground: Ground
) -> Colour:
    """The colour that explains thin strokes best, as mixtures of it and the background."""
    seen, behind = picture[mask], ground.colours[mask]
    weight = ((seen - behind) ** 2).sum(-1)
    costs: dict[Colour, float] = {}
    for name in COLOURS:
        cover, rest = cover_of(seen, behind, np.array(RGB[name], float))
        faint = max(0.0, _FULL - float(np.quantile(cover, 0.9)))
        costs[name] = float((rest * weight).sum() / max(weight.sum(), 1.0)) + _FAINT * faint**2
    return min(costs, key=costs.__getitem__)
