"""Which record comes when: sources mixed by weight and shuffled by epoch, as one endless order.

The order is a function, not a state: record ``n`` follows from the seed and ``n`` alone, so that any part of it can be
read by any host, now or after a resume.  Weights are exact: in the first ``n`` records a source occurs its share times
``n``, up to one record for each source that is named before it.
"""

import bisect
import dataclasses
import itertools
import math
import zlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from grain.experimental import index_shuffle

from mammoth_jax.core.errors import InputError

WINDOW_BLOCKS = 8
SMALL = 1 << 16


@dataclasses.dataclass(frozen=True)
class Draw:
    """Record ``index`` of source number ``source``, in that source's pass number ``epoch``."""

    source: int
    index: int
    epoch: int


def whole(weights: Sequence[float]) -> tuple[int, ...]:
    """The weights in whole numbers of exactly their proportion (0.1 is a tenth).

    Raises:
      InputError: a weight is not a positive number.
    """
    if any(not math.isfinite(w) or w <= 0 for w in weights):
        raise InputError(
            f"weights must be positive, got {list(weights)}; leave out what should have no weight"
        )
    exact = [Fraction(str(w)) for w in weights]
    unit = math.lcm(*(w.denominator for w in exact))
    return tuple(int(w * unit) for w in exact)


class Interleave:
    """Random access to several endless sequences merged in fixed proportions."""

    def __init__(self, weights: Sequence[float]):
        """
        Raises:
          InputError: a weight is not a positive number.
        """
        self.weights = whole(weights)

    def __getitem__(self, n: int) -> tuple[int, int]:
        """Of element ``n``: the sequence that it comes from and its number there.

        The first sequence takes the positions at which its rounded-down quota grows, the next one likewise among the
        positions that are left, and so on.
        """
        rest = sum(self.weights)
        for i, weight in enumerate(self.weights[:-1]):
            before = n * weight // rest
            if (n + 1) * weight // rest > before:
                return i, before
            n, rest = n - before, rest - weight
        return len(self.weights) - 1, n


class Shuffle:
    """An endless sequence of ``0 .. length - 1``, each pass in another order."""

    def __init__(self, length: int, seed: int):
        self._length, self._seed = length, seed
        self._table: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, n: int) -> tuple[int, int]:
        """(index, epoch) of element ``n``."""
        epoch, n = divmod(n, self._length)
        seed = zlib.crc32(f"{self._seed}/{epoch}".encode())
        if (
            self._length > SMALL
        ):  # grain's permutation needs no table, but steps through 65,536 numbers at least
            return index_shuffle(n, max_index=self._length - 1, seed=seed, rounds=4), epoch
        known, table = self._table
        if known != epoch:
            table = np.argsort(np.random.Philox(key=seed).random_raw(self._length), kind="stable")
            self._table = (epoch, table)  # replaced whole: threads see the old one or the new one
        return int(table[n]), epoch


class BlockShuffle:
    """As :class:`Shuffle` for records that are read in blocks (row groups): blocks are shuffled, and records within
    windows of ``WINDOW_BLOCKS`` of them, so that a reader that keeps that many blocks reads each once a pass.
    """

    def __init__(self, blocks: Sequence[int], seed: int):
        """``blocks``: lengths of the blocks, in the order of the records."""
        self._starts = [0, *itertools.accumulate(blocks)]
        self._length = self._starts.pop()
        self._sizes = list(blocks)
        self._seed = seed
        self._blocks = Shuffle(len(blocks), seed)
        self._pass: tuple[int, list[int], list[int]] = (-1, [], [])
        self._window = ((-1, -1), Shuffle(1, 0))

    def _ends(self, epoch: int) -> tuple[list[int], list[int]]:
        """Blocks of a pass in their order, and how many records are over after each."""
        known, order, ends = self._pass
        if known != epoch:
            count = len(self._sizes)
            order = [self._blocks[epoch * count + i][0] for i in range(count)]
            ends = list(itertools.accumulate(self._sizes[b] for b in order))
            self._pass = (epoch, order, ends)  # replaced whole: threads see the old one or the new one
        return order, ends

    def __getitem__(self, n: int) -> tuple[int, int]:
        """(index, epoch) of element ``n``."""
        epoch, n = divmod(n, self._length)
        order, ends = self._ends(epoch)
        window = bisect.bisect_right(ends, n) // WINDOW_BLOCKS * WINDOW_BLOCKS
        start = ends[window - 1] if window else 0
        size = ends[min(window + WINDOW_BLOCKS, len(ends)) - 1] - start
        known, mixed = self._window
        if known != (epoch, window):
            mixed = Shuffle(size, zlib.crc32(f"{self._seed}/{epoch}/{window}".encode()))
            self._window = ((epoch, window), mixed)
        n = start + mixed[n - start][0]
        place = bisect.bisect_right(ends, n)
        block = order[place]
        return self._starts[block] + n - (ends[place - 1] if place else 0), epoch


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A source within a mixture: its number, its length and, if it is read in blocks, their lengths."""

    source: int
    length: int
    blocks: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Branch:
    """Mixtures or sources with their weights."""

    parts: tuple["Leaf | Branch", ...]
    weights: tuple[float, ...]


class Order:
    """The endless order of all records of a tree of mixtures."""

    def __init__(self, tree: Leaf | Branch, seed: int, path: str = ""):
        self._tree = tree
        if isinstance(tree, Leaf):
            own = zlib.crc32(f"{seed}/{path}".encode())
            self._shuffle = (
                BlockShuffle(tree.blocks, own) if tree.blocks is not None else Shuffle(tree.length, own)
            )
        else:
            self._interleave = Interleave(tree.weights)
            self._parts = [Order(part, seed, f"{path}/{i}") for i, part in enumerate(tree.parts)]

    @property
    def tree(self) -> Leaf | Branch:
        """What is mixed."""
        return self._tree

    def __getitem__(self, n: int) -> Draw:
        """Record ``n`` of the order."""
        if isinstance(self._tree, Leaf):
            index, epoch = self._shuffle[n]
            return Draw(self._tree.source, index, epoch)
        part, n = self._interleave[n]
        return self._parts[part][n]


def shares(tree: Leaf | Branch) -> dict[int, Fraction]:
    """The part of the order that each source has."""
    if isinstance(tree, Leaf):
        return {tree.source: Fraction(1)}
    weights = whole(tree.weights)
    return {
        source: Fraction(weight, sum(weights)) * share
        for part, weight in zip(tree.parts, weights, strict=True)
        for source, share in shares(part).items()
    }
