"""Filling a row from windows of waiting samples, one window a pool."""

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np

from mammoth_jax.core.types import Int
from mammoth_jax.data.packing.lengths import Lengths
from mammoth_jax.data.packing.shares import Owed


class Sized(Protocol):
    """Something that goes into rows."""

    @property
    def lengths(self) -> Lengths:
        """What it takes."""
        ...


S = TypeVar("S", bound=Sized)


class Window(Generic[S]):
    """The next ``size`` samples of a pool in one lane, in their order; taken ones are made up for."""

    def __init__(self, read: Callable[[], S], size: int):
        """``read`` gives the next sample, each of which fits an empty row."""
        self._read, self._size = read, size
        self._samples: list[S] = []
        self._table = np.zeros((size, len(Lengths._fields)), np.int64)

    def lengths(self) -> Int[np.ndarray, "n 7"]:
        """What the samples take, oldest first."""
        while len(self._samples) < self._size:
            sample = self._read()
            self._table[len(self._samples)] = sample.lengths
            self._samples.append(sample)
        return self._table

    def take(self, number: int) -> S:
        """Removes a sample."""
        self._table[number:-1] = self._table[number + 1 :]
        return self._samples.pop(number)


def fill_row(
    windows: Mapping[int, Window[S]], turn: Mapping[int, float], owed: Owed, budget: Lengths
) -> list[tuple[int, S]]:
    """The samples of the next row with their pools, in the order in which they were chosen.

    Each pool gives its oldest sample first, if that fits, so that none waits for ever; the first of all fits an empty
    row.  Then the pool that is furthest behind gives what fits best, until nothing of any pool fits.
    """
    capacity = np.asarray(budget, np.int64)
    room = capacity.copy()
    row: list[tuple[int, S]] = []
    begun: set[int] = set()
    while True:
        for pool in owed.preference(turn):
            window = windows[pool]
            number = choose(window.lengths(), room, capacity, oldest=pool not in begun)
            if number is not None:
                break
        else:
            return row
        sample = window.take(number)
        room -= np.asarray(sample.lengths)
        owed.take(turn, pool, sample.lengths.tokens)
        begun.add(pool)
        row.append((pool, sample))


def choose(
    waiting: Int[np.ndarray, "n k"],
    room: Int[np.ndarray, " k"],
    budget: Int[np.ndarray, " k"],
    *,
    oldest: bool,
) -> int | None:
    """The number of the sample to take, None if none fits.

    With ``oldest`` the first one if it fits.  Else the one that takes most of what is left where most is left: the
    sum over the arrays of what a sample takes times the room, both as parts of the budget.

    Args:
      waiting: what each sample takes, oldest first.
      room: what is left.
      budget: what a row has.
    """
    fits = np.all(waiting <= room, axis=1)
    if not fits.any():
        return None
    if oldest and bool(fits[0]):
        return 0
    scale = 1 / np.maximum(budget, 1)
    score = (waiting * scale) @ (room * scale)
    return int(np.argmax(np.where(fits, score, -1.0)))
