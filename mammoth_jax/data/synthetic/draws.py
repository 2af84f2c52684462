"""Random numbers that are the same on every platform and NumPy version.

The raw words of Philox are fixed for good; the distributions of ``numpy.random.Generator`` are not.  So the few
distributions needed are written here, on Python's exact integers.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 128


class Draws:
    """A stream of numbers that depends on ``(seed, stream, index)`` only."""

    def __init__(self, seed: int, stream: int, index: int) -> None:
        mask = (1 << 64) - 1
        self._bits = np.random.Philox(
            key=np.array([seed & mask, stream & mask], np.uint64),
            counter=np.array([0, 0, index & mask, 0], np.uint64),
        )
        self._words: list[int] = []

    def word(self) -> int:
        """64 random bits."""
        if not self._words:
            self._words = self._bits.random_raw(_BLOCK).tolist()
        return self._words.pop()

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return (self.word() >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return ((self.word() >> 32) * n) >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]; ``low`` where the range is empty."""
        return low + self.below(high - low + 1) if high > low else low

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, each as likely."""
        return items[self.below(len(items))]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, with the given weights (they sum to 1)."""
        u = self.uniform()
        for index, weight in enumerate(weights):
            u -= weight
            if u < 0:
                return index
        return len(weights) - 1

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out
