"""Regions of one colour before a background."""

import dataclasses

import numpy as np

from mammoth_jax.core.types import Bool, Float, Int
from mammoth_jax.data.synthetic.score.ground import Ground
from mammoth_jax.data.synthetic.score.smoothing import grown, regions
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, RGB, BackgroundColour, Colour

_THIN = 3000.0  # squared distance that a pixel half covered by a colour must be nearer to it than to another in full
_LEAST_COVER = 0.3
_BY_FAR = 0.6
_SLIVER = 16.0  # pixels, in a picture of 64, below which a region beside a larger one is that one's edge
_MOST_PIECES = 400  # of one colour, in a picture; the world's scenes fall into 140 with noise and blur
# share of a region's pixels that touch a larger one, above which it is that one's edge at any size
_RIM = 0.7


@dataclasses.dataclass(frozen=True)
class Region:
    """Pixels that hang together and have about the same colour."""

    pixels: Int[np.ndarray, "pixels 2"]
    colour: Float[np.ndarray, "3"]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; right and bottom are exclusive."""
        (top, left), (bottom, right) = self.pixels.min(0).tolist(), self.pixels.max(0).tolist()
        return left, top, right + 1, bottom + 1

    def mask(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """The region's pixels in the picture."""
        out = np.zeros((height, width), bool)
        out[self.pixels[:, 0], self.pixels[:, 1]] = True
        return out


def cover_of(
    picture: Float[np.ndarray, "... 3"],
    behind: Float[np.ndarray, "... 3"],
    colour: Float[np.ndarray, "... 3"],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """How much of each pixel a colour covers, and the squared distance of what cannot be explained so."""
    step = colour - behind
    seen = picture - behind
    cover = np.clip((seen * step).sum(-1) / np.maximum((step**2).sum(-1), 1.0), 0.0, 1.1)
    return cover, ((seen - cover[..., None] * step) ** 2).sum(-1)


def colour_regions(
    picture: Float[np.ndarray, "height width 3"], ground: Ground, least: float = 1.0
) -> list[Region]:
    """What stands out from the background, in regions of one colour each, of ``least`` pixels or more, largest first.

    A picture that falls into very many pieces is none of the world's: only its largest ones are looked at.
    """
    height, width, _ = picture.shape
    names = np.full((height, width), -1)
    rows, columns = np.nonzero(ground.outstanding)
    if not rows.size:
        return []
    pixels, behind = picture[rows, columns], ground.colours[rows, columns]
    costs = []
    for name in COLOURS:
        cover, rest = cover_of(pixels, behind, np.array(RGB[name], float))
        costs.append(rest + _THIN * (1 - np.minimum(cover, 1.0)) ** 2 + 1e5 * (cover < _LEAST_COVER))
    names[rows, columns] = np.argmin(costs, axis=0)
    pieces = sorted((members for _, members in regions(names)), key=lambda members: -len(members))
    groups = _with_slivers(pieces[:_MOST_PIECES], height, width)
    return [
        Region(np.concatenate(group), _colour(group[0], picture, ground))
        for group in groups
        if sum(map(len, group)) >= least
    ]


_Pixels = Int[np.ndarray, "pixels 2"]


def _colour(
    members: _Pixels, picture: Float[np.ndarray, "height width 3"], ground: Ground
) -> Float[np.ndarray, "3"]:
    """The middle of those that stand out most: the others are mixed with what is beside them."""
    colours = picture[members[:, 0], members[:, 1]]
    apart = ((colours - ground.colours[members[:, 0], members[:, 1]]) ** 2).sum(-1)
    return np.median(colours[apart >= np.quantile(apart, 0.6)], axis=0)


def _with_slivers(pieces: list[_Pixels], height: int, width: int) -> list[list[_Pixels]]:
    """Pieces, largest first, in groups: edges whose mixed colours are nearer to another name are put back to what they
    are the edge of, which is the first of their group."""
    sliver = _SLIVER * max(1.0, min(height, width) / 64) ** 2
    owner = np.full((height + 2, width + 2), -1)
    groups: list[list[_Pixels]] = []
    for piece in pieces:
        rows, columns = piece[:, 0] + 1, piece[:, 1] + 1
        number = len(groups)
        beside = np.stack(
            [owner[rows + down, columns + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
        )
        if (beside >= 0).any():
            nearest = int(np.bincount(beside[beside >= 0]).argmax())
            if len(piece) < sliver or (beside == nearest).any(0).mean() > _RIM:
                number = nearest
        if number == len(groups):
            groups.append([])
        groups[number].append(piece)
        owner[rows, columns] = number
    return groups


def nearest_name(colour: Float[np.ndarray, "3"]) -> Colour | BackgroundColour:
    """The nearest of the ten colours of items; that of a background only where it is nearer by far."""

    def distance(name: str) -> float:
        return float(np.linalg.norm(colour - np.array(RGB[name])))

    item, ground = min(COLOURS, key=distance), min(BACKGROUND_COLOURS, key=distance)
    return ground if distance(ground) < _BY_FAR * distance(item) else item


def around(region: Region, height: int, width: int, steps: int) -> Bool[np.ndarray, "height width"]:
    """A region and what is next to it."""
    return grown(region.mask(height, width), steps)
