"""A realistic distribution of lengths, and how full rows get on it: what packing is measured on.

Captions of 20 to 400 tokens, token grids of 16 x 16 to 64 x 64 of several aspect ratios, edits with 1 to 5 references,
questions about a picture.  Only lengths: no pictures, no tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from mammoth_jax.core.types import Float
from mammoth_jax.data.packing.fill import Window, fill_row
from mammoth_jax.data.packing.lengths import Lengths, as_array, filled, propose_budgets
from mammoth_jax.data.packing.shares import Balanced, Mixing, Owed

Kind = Literal["t2i", "edit", "it2t", "text"]
RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)
REFERENCE_SIDES = (64, 64, 48, 32, 32)
"""The longest side of each reference's square by how many there are (limits like those of OmniGen2)."""
REFERENCE_COUNTS = (0.5, 0.2, 0.1, 0.1, 0.1)


@dataclasses.dataclass(frozen=True)
class Sized:
    """A sample of which only its lengths are known."""

    lengths: Lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthModel:
    """Draws lengths as the released model (Dev) would have them: tokens of 16 pixels drawn, of 14 as a reference, of 32
    in the tower; ``layout`` tokens of turns and openings; ``queries`` of the alignment module."""

    layout: int = 30
    queries: int = 64

    def draw(self, kind: Kind, random: np.random.Generator) -> Lengths:
        """The lengths of a sample."""
        words = int(random.integers(20, 401))
        if kind == "text":
            return Lengths(int(random.integers(100, 2049)))
        if kind == "it2t":
            rows, cols = self._grid(random, 64)
            seen, patches = self._seen(rows, cols)
            return Lengths(self.layout + seen + words, patches)
        rows, cols = self._grid(random, 64)
        tokens, patches, latents = self.layout + words + rows * (cols + 1) + 1, 0, 0
        if kind == "edit":
            count = 1 + int(random.choice(len(REFERENCE_COUNTS), p=REFERENCE_COUNTS))
            for _ in range(count):
                height, width = self._grid(random, REFERENCE_SIDES[count - 1])
                seen, read = self._seen(height, width)
                codes = round(height * 16 / 14) * (round(width * 16 / 14) + 1) + 9
                tokens, patches, latents = tokens + seen + codes, patches + read, latents + height * width
        condition = words + self.layout // 2 + self.queries
        drawn = rows * cols
        return Lengths(tokens, patches, condition, latents, drawn, condition + latents + drawn, 1)

    def _grid(self, random: np.random.Generator, longest: int) -> tuple[int, int]:
        """Rows and columns of 16 pixels: the area's side is uniform between 16 and ``longest``."""
        side, ratio = random.uniform(16, longest + 1), random.choice(RATIOS)
        side = min(side, longest)
        return max(int(side / ratio**0.5), 1), max(int(side * ratio**0.5), 1)

    def _seen(self, rows: int, cols: int) -> tuple[int, int]:
        """Decoder tokens of a picture in the tower, and its patches."""
        height, width = max(round(rows / 2), 1), max(round(cols / 2), 1)
        return height * width + 2, 4 * height * width


@dataclasses.dataclass(frozen=True)
class Packed:
    """How rows were filled.

    Attributes:
        full: the part of each array that is filled, by name.
        tokens: tokens of the rows that are no padding.
        places: tokens of the rows with padding.
        shares: each pool's part of the tokens.
        dropped: the part of the samples that fit no row.
    """

    full: dict[str, float]
    tokens: int
    places: int
    shares: Float[np.ndarray, " pools"]
    dropped: float


def pack(
    draws: Sequence[Callable[[], Lengths]],
    weights: Sequence[float],
    mixing: Mixing,
    budget: Lengths,
    *,
    rows: int,
    window: int,
) -> Packed:
    """Fills rows of one lane, a step each, with samples of pools that ``draws`` draw."""
    read = [0, 0]

    def fitting(draw: Callable[[], Lengths]) -> Callable[[], Sized]:
        def sample() -> Sized:
            while True:
                lengths = draw()
                read[0] += 1
                if all(a <= b for a, b in zip(lengths, budget, strict=True)):
                    return Sized(lengths)
                read[1] += 1

        return sample

    windows = {pool: Window(fitting(draw), window) for pool, draw in enumerate(draws)}
    owed, totals, by_pool = Owed([0.0] * len(draws)), [], np.zeros(len(draws))
    for step in range(rows):
        row = fill_row(windows, mixing.turn(weights, 0, step), owed, budget)
        totals.append(Lengths(*as_array([sample.lengths for _, sample in row]).sum(axis=0).tolist()))
        for pool, sample in row:
            by_pool[pool] += sample.lengths.tokens
    full = dict(zip(Lengths._fields, filled(totals, budget).tolist(), strict=True))
    tokens = int(by_pool.sum())
    return Packed(full, tokens, rows * budget.tokens, by_pool / tokens, read[1] / read[0])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Packed rows against batches of a sample a row: the part of the tokens that is no padding.

    Attributes:
        budget: what was proposed for the distribution.
        packed: rows filled with it.
        padded: batches padded to their longest sample.
        sorted: the same, after each 64 batches were sorted by length.
    """

    budget: Lengths
    packed: Packed
    padded: float
    sorted: float


def compare_fill(
    parts: Mapping[Kind, float] = MappingProxyType({"t2i": 0.6, "edit": 0.4}),
    *,
    tokens: int = 16_384,
    rows: int = 200,
    samples: int = 8192,
    window: int = 32,
    batch: int = 16,
    seed: int = 0,
) -> Comparison:
    """Fills rows of ``tokens`` with samples of one pool, ``parts`` of each kind, by budgets that are proposed for them.

    Samples that are longer than a row are left out on all sides.
    """
    seen = stream(parts, tokens, seed)
    known = [seen() for _ in range(samples)]
    budget = propose_budgets(known, tokens=tokens)
    packed = pack([stream(parts, tokens, seed + 1)], [1.0], Balanced(), budget, rows=rows, window=window)
    return Comparison(budget, packed, padded(known, batch), padded(known, batch, sort=64 * batch))


def stream(parts: Mapping[Kind, float], tokens: int, seed: int) -> Callable[[], Lengths]:
    """Draws lengths of samples, ``parts`` of each kind, of at most ``tokens``."""
    model, kinds, random = LengthModel(), list(parts), np.random.default_rng(seed)
    share = np.asarray(list(parts.values()), np.float64) / sum(parts.values())

    def draw() -> Lengths:
        while True:
            found = model.draw(kinds[int(random.choice(len(kinds), p=share))], random)
            if found.tokens <= tokens:
                return found

    return draw


def padded(lengths: Sequence[Lengths], batch: int, *, sort: int = 0) -> float:
    """The part of a batch's tokens that is no padding if each sample is a row, padded to the batch's longest.

    With ``sort`` every so many samples are sorted by length before they are cut into batches.
    """
    parts = padded_batches(lengths, batch, sort=sort)
    return sum(map(sum, parts)) / sum(max(part) * len(part) for part in parts)


def padded_batches(lengths: Sequence[Lengths], batch: int, *, sort: int = 0) -> list[Sequence[int]]:
    """The tokens of each sample of each batch, as in :func:`padded`."""
    counts = [each.tokens for each in lengths]
    ordered = [sorted(run) if sort else run for run in _runs(counts, sort or len(counts))]
    return [part for run in ordered for part in _runs(run, batch)]


def _runs(values: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
