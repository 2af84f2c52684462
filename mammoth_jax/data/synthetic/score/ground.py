"""The background of a picture: its colours, its kind, and what it would be like behind the items.

A background mixes two named colours, so its pixels lie near a segment between two points of RGB space.  The segment
that most pixels are near is found; where on it they lie tells the kind.
"""

import dataclasses
import functools

import numpy as np

from mammoth_jax.core.types import Bool, Float
from mammoth_jax.data.synthetic.background import SOFT_PARTNERS, TEXTURE_PARTNERS
from mammoth_jax.data.synthetic.score.findings import BackgroundKind, FoundBackground
from mammoth_jax.data.synthetic.score.smoothing import grown, smoothed
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, RGB, BackgroundColour

_NEAR = 45.0  # colours of a background may be so far from a mixture of two named ones (Euclidean RGB)
_OUTSTANDING = 34.0  # what is farther than this stands out; items lie at least 75 from all backgrounds
_SECOND_COLOUR = 50.0  # squared distance to the segment that a second colour must save, in the mean
_UNUSED_END = 60.0  # the same that leaving an end of the segment unused costs
_TEXTURE = 0.8  # least correlation with stripes or checks
_GRADIENT = 0.93  # least correlation with a direction
_LEAST_SHARE = 0.3  # of the picture; below this nothing is called a background


@dataclasses.dataclass(frozen=True)
class Ground:
    """A picture's background.

    Attributes:
        found: its name, None where there is none.
        colours: the background at every pixel, also behind what stands in front of it.
        outstanding: pixels that are not background.
    """

    found: FoundBackground | None
    colours: Float[np.ndarray, "height width 3"]
    outstanding: Bool[np.ndarray, "height width"]


def find_ground(picture: Float[np.ndarray, "height width 3"]) -> Ground:
    """The background of a picture with values 0 to 255."""
    soft = smoothed(picture, 0.7)
    pair = _best_pair(soft.reshape(-1, 3))
    # Edges of items may have colours of backgrounds: look again, away from what stands out.
    sure = _surely(picture, pair)
    softer = smoothed(picture * sure[..., None], 1.2) / np.maximum(smoothed(sure * 1.0, 1.2), 1e-6)[..., None]
    pair = _best_pair(softer[sure])
    sure = _surely(picture, pair)
    first, second = (np.array(RGB[name], float) for name in pair)
    _, distance = _on_segment(picture, first, second)
    colours = _filled(picture, sure)
    kind: BackgroundKind = "plain"
    if pair[0] != pair[1]:
        share, softer_share = (_on_segment(p, first, second)[0] for p in (soft, softer))
        kind, pattern = _kind_of(share, softer_share, sure)
        if pattern is not None:
            colours = _painted(picture, pattern, sure, first, second)
    # Where the background is not quite of its named colours, what is like its surroundings does not stand out.
    apart = np.sqrt(((picture - colours) ** 2).sum(-1))
    outstanding = np.minimum(distance, apart) > _OUTSTANDING
    found = None
    if (distance < _NEAR).mean() >= _LEAST_SHARE:
        names: list[BackgroundColour] = [name for name in BACKGROUND_COLOURS if name in pair]
        found = FoundBackground(kind, tuple(names))
    return Ground(found, colours, outstanding)


def _surely(
    picture: Float[np.ndarray, "height width 3"], pair: tuple[BackgroundColour, BackgroundColour]
) -> Bool[np.ndarray, "height width"]:
    """Pixels that are background and not beside anything else; at least some."""
    _, distance = _on_segment(picture, *(np.array(RGB[name], float) for name in pair))
    outstanding = distance > _OUTSTANDING
    for sure in (~grown(outstanding, 2), ~outstanding):
        if sure.mean() > 0.1:
            return sure
    return np.ones_like(outstanding)


@functools.cache
def _pairs() -> tuple[tuple[BackgroundColour, BackgroundColour], ...]:
    """Every colour alone, and every two that may stand side by side."""
    pairs: list[tuple[BackgroundColour, BackgroundColour]] = []
    for name in BACKGROUND_COLOURS:
        pairs.append((name, name))
    for number, first in enumerate(BACKGROUND_COLOURS):
        partners = {*SOFT_PARTNERS[first], *TEXTURE_PARTNERS[first]}
        for second in BACKGROUND_COLOURS[number + 1 :]:
            if second in partners:
                pairs.append((first, second))
    return tuple(pairs)


@functools.cache
def _segments() -> tuple[Float[np.ndarray, "pairs 3"], Float[np.ndarray, "pairs 3"]]:
    """Where the segments of all pairs begin, and how they go on."""
    first, second = (np.array([RGB[pair[end]] for pair in _pairs()], float) for end in (0, 1))
    return first, second - first


def _on_segment(
    pixels: Float[np.ndarray, "... 3"], first: Float[np.ndarray, "3"], second: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """How far along a segment of colours each pixel lies, 0 to 1, and how far from it."""
    along = second - first
    share = np.clip((pixels - first) @ along / max(float(along @ along), 1.0), 0.0, 1.0)
    return share, np.sqrt(((pixels - first - share[..., None] * along) ** 2).sum(-1))


def _best_pair(pixels: Float[np.ndarray, "pixels 3"]) -> tuple[BackgroundColour, BackgroundColour]:
    """The segment that most pixels are near, and that they use from end to end."""
    pixels = pixels[:: max(1, len(pixels) // 1000)]
    first, along = _segments()
    length = np.maximum((along**2).sum(1), 1.0)
    share = np.clip((pixels @ along.T - (first * along).sum(1)) / length, 0.0, 1.0)
    # |p - f - t a|^2, multiplied out
    to_first = (pixels**2).sum(1)[:, None] - 2 * pixels @ first.T + (first**2).sum(1)
    distance = to_first - 2 * share * (pixels @ along.T - (first * along).sum(1)) + share**2 * length
    cost = np.minimum(distance, _NEAR**2).mean(0)
    near = distance < _NEAR**2
    ordered = np.sort(np.where(near, share, 2.0), axis=0)
    last = np.maximum(near.sum(0) - 1, 0)
    numbers = np.arange(len(first))
    low, high = (np.minimum(ordered[(last * q).astype(int), numbers], 1.0) for q in (0.03, 0.97))
    two = (along**2).sum(1) > 0
    cost = cost + two * (_SECOND_COLOUR + _UNUSED_END * (1.0 - (high - low)))
    return _pairs()[int(cost.argmin())]


def _filled(
    picture: Float[np.ndarray, "height width 3"], sure: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    """The picture where it is surely background, and means of what is near elsewhere."""
    weight = sure.astype(float)
    total = picture[sure].mean(0)
    out = np.broadcast_to(total, picture.shape).copy()
    for width in (12.0, 4.0, 1.5):
        scale = width * max(1.0, min(sure.shape) / 64)
        near = smoothed(weight, scale)
        mean = smoothed(picture * weight[..., None], scale) / np.maximum(near, 1e-6)[..., None]
        trust = np.clip(near / 0.15, 0.0, 1.0)[..., None]
        out = trust * mean + (1 - trust) * out
    return out


# Kinds.


def _kind_of(
    share: Float[np.ndarray, "height width"],
    softer: Float[np.ndarray, "height width"],
    sure: Bool[np.ndarray, "height width"],
) -> tuple[BackgroundKind, Float[np.ndarray, "height width"] | None]:
    """The kind of a background of two colours; stripes and checks with which pixels have which (-1 and 1).

    ``share`` of the second colour as it is seen, and ``softer``, which shows less noise and no edges.
    """
    signed = np.where(sure, 2 * share - 1, 0.0)
    kind, pattern = _best_texture(signed)
    agreement = float((signed * pattern).sum()) / max(float(np.sqrt((signed**2).sum() * sure.sum())), 1e-6)
    if agreement > _TEXTURE:
        return kind, pattern
    rows, columns = np.nonzero(sure)
    height, width = sure.shape
    values = softer[sure]
    for along in (columns / width, rows / height, columns + rows):
        if min(float(np.std(along)), float(np.std(values))) < 1e-6:
            continue
        if abs(float(np.corrcoef(along, values)[0, 1])) > _GRADIENT:
            return "gradient", None
    return "noise", None


def _best_texture(
    signed: Float[np.ndarray, "height width"],
) -> tuple[BackgroundKind, Float[np.ndarray, "height width"]]:
    """The stripes or checks, of any width of the world and any phase, that agree with most pixels."""
    height, width = signed.shape
    scale = max(1.0, min(height, width) / 64)
    columns, rows = np.arange(width), np.arange(height)
    diagonals = columns[None, :] + rows[:, None]
    profiles = {
        "right": signed.sum(0),
        "down": signed.sum(1),
        "diagonal": np.bincount(diagonals.ravel(), signed.ravel(), height + width - 1),
    }
    best, most = (np.zeros_like(signed), "stripes"), -np.inf
    for band in range(int(5 * scale), int(13 * scale) + 1):
        waves = _waves(band, height + width - 1)
        for direction, profile in profiles.items():
            agreement = waves[:, : profile.size] @ profile
            phase = int(agreement.argmax())
            if agreement[phase] > most:
                most = float(agreement[phase])
                along = {"right": columns[None, :], "down": rows[:, None], "diagonal": diagonals}[direction]
                best = np.broadcast_to(waves[phase][along], signed.shape), "stripes"
        agreement = waves[:, :height] @ signed @ waves[:, :width].T
        down, right = np.unravel_index(int(agreement.argmax()), agreement.shape)
        if agreement[down, right] > most:
            most = float(agreement[down, right])
            best = waves[down][:height, None] * waves[right][None, :width], "checks"
    pattern, kind = best
    return ("checks" if kind == "checks" else "stripes"), pattern


@functools.lru_cache(maxsize=64)
def _waves(band: int, length: int) -> Float[np.ndarray, "phase length"]:
    """Bands of -1 and 1 in turn, of every phase."""
    phases = np.arange(2 * band)[:, None]
    return np.where((np.arange(length)[None, :] + phases) // band % 2 == 0, -1.0, 1.0)


def _painted(
    picture: Float[np.ndarray, "height width 3"],
    pattern: Float[np.ndarray, "height width"],
    sure: Bool[np.ndarray, "height width"],
    first: Float[np.ndarray, "3"],
    second: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "height width 3"]:
    """A texture in the two colours that the picture has there."""
    soft = smoothed(pattern, 0.6)
    ends = []
    for sign, named in ((-1, first), (1, second)):
        inside = sure & (sign * soft > 0.9)
        ends.append(np.median(picture[inside], axis=0) if inside.sum() >= 8 else named)
    return ends[0] + (ends[1] - ends[0]) * ((soft + 1) / 2)[..., None]
