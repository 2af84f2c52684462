"""Texts among the regions of a picture."""

import dataclasses
from collections.abc import Mapping

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
_MOST_PIECES = 24  # that are read in one row, the largest ones; a scene of the world has fewer
_MOST_READ = 1.5  # pictures that all windows which are read make up; a scene of the world takes half of one


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
    found: list[Line] = []
    height, width = picture.shape[:2]
    left_to_read = _MOST_READ * height * width
    for row in _rows(regions, scale):
        left = list(row)
        masks = {number: regions[number].mask(height, width) for number in row}
        colours: dict[int, Colour] = {
            number: _colour_of(mask, picture, ground) for number, mask in masks.items()
        }
        for _ in range(_TEXTS):
            size = _window_size([regions[number] for number in left])
            if size > left_to_read:
                break
            left_to_read -= size
            line = _read(left, regions, masks, colours, picture, ground, scale)
            if line is None or any(boxes_meet(line.fit.box, other.fit.box, -1.0) for other in found):
                break
            found.append(line)
            left = [number for number in left if number not in line.members]
            if not left:
                break
    return found


def _window_size(members: list[Region]) -> int:
    """The pixels of a box around regions."""
    left, top, right, bottom = np.array([region.box for region in members]).T
    return int((right.max() - left.min()) * (bottom.max() - top.min()))


def _rows(regions: list[Region], scale: float) -> list[list[int]]:
    """Numbers of the regions that stand in a row, near each other, and are not too high for letters."""
    boxes = [region.box for region in regions]
    low = [n for n, box in enumerate(boxes) if box[3] - box[1] <= _HIGHEST * scale]
    low.sort(key=lambda n: boxes[n][0])
    group = {n: n for n in low}
    for position, a in enumerate(low):
        for b in low[position + 1 :]:
            old, new = group[b], group[a]
            if old != new and _in_a_row(boxes[a], boxes[b], _BETWEEN * scale):
                group = {n: new if g == old else g for n, g in group.items()}
    rows: dict[int, list[int]] = {}
    for number, name in group.items():
        rows.setdefault(name, []).append(number)
    return [sorted(row, key=lambda n: -len(regions[n].pixels))[:_MOST_PIECES] for row in rows.values()]


def _in_a_row(a: tuple[int, int, int, int], b: tuple[int, int, int, int], between: float) -> bool:
    shared = min(a[3], b[3]) - max(a[1], b[1])
    apart = max(a[0], b[0]) - min(a[2], b[2])
    return apart <= between and shared >= 0.5 * min(a[3] - a[1], b[3] - b[1])


def _read(
    numbers: list[int],
    regions: list[Region],
    masks: Mapping[int, Bool[np.ndarray, "height width"]],
    colours: Mapping[int, Colour],
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
        colour = np.array(RGB[colours[number]], float)
        mine = np.minimum(cover_of(seen, behind, colour)[0], 1.0) * grown(masks[number], 1)[window]
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
        mask |= masks[number]
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
    cover, rest = cover_of(seen, behind, np.array([[RGB[name]] for name in COLOURS], float))
    faint = np.maximum(0.0, _FULL - np.quantile(cover, 0.9, axis=1))
    costs = (rest * weight).sum(1) / max(float(weight.sum()), 1.0) + _FAINT * faint**2
    return COLOURS[int(costs.argmin())]
