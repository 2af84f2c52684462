"""Which shape the next batch has: each as often as its weight says, to within about a batch, the same on all hosts.

Weights that are measured once stay a little wrong for ever, and the shapes that they underrate overflow.  So they are
measured on: with each step a few more pictures of the global order are looked at, by all hosts the same ones.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mammoth_jax.core.errors import InputError

Probe = Callable[[int], int | None]
LOOKS = 8  # a step


class Schedule:
    """Serves the shape that lags most behind its weight."""

    def __init__(self, weights: Sequence[int]):
        """``weights``: whole numbers in the proportion of the shapes."""
        self._weights = list(weights)
        self._served = [0] * len(weights)

    def _shares(self) -> list[int]:
        """Whole numbers in the proportion in which the shapes are to be served."""
        return self._weights

    def __next__(self) -> int:
        """The number of the next batch's shape."""
        shares = self._shares()
        total, step = sum(shares), sum(self._served) + 1
        lags = [share * step - served * total for share, served in zip(shares, self._served, strict=True)]
        shape = lags.index(max(lags))
        self._served[shape] += 1
        return shape

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {"weights": list(self._weights), "served": list(self._served)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._weights, self._served = list(state["weights"]), list(state["served"])


class MeasuredSchedule(Schedule):
    """A schedule whose weights count the shapes of the first pictures of the order, ``LOOKS`` more with each step.

    A shape that is served too often makes the loader read on and drop what it reads meanwhile, one that is served too
    rarely drops its own only: each count is lowered by its standard error.
    """

    def __init__(self, shapes: int, probe: Probe, first: int):
        """``probe`` gives the shape's number of a picture of the order, or None if it cannot be read; ``first`` of
        them are looked at before the first step.

        Raises:
          InputError: none of those can be read.
        """
        super().__init__([0] * shapes)
        self._probe, self._seen = probe, 0
        for _ in range(first):
            self._look()
        if not any(self._weights):
            raise InputError(f"none of the first {first} pictures can be read")

    def _look(self) -> None:
        shape = self._probe(self._seen)
        if shape is not None:
            self._weights[shape] += 1
        self._seen += 1

    def _shares(self) -> list[int]:
        return [count - math.isqrt(count) if count > 1 else count for count in self._weights]

    def __next__(self) -> int:
        """See :class:`Schedule`."""
        for _ in range(LOOKS):
            self._look()
        return super().__next__()

    def state(self) -> dict[str, Any]:
        """See :class:`Schedule`."""
        return {**super().state(), "seen": self._seen}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`Schedule`."""
        super().restore(state)
        self._seen = state["seen"]
