"""Which pool of samples has its turn: one a step, or all of them within each row.

Both follow from the configuration, the seed and the step, or from what the lane was given so far; nothing here depends
on hosts or workers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.mixing import Interleave, Shuffle, whole


class Mixing(Protocol):
    """How pools share the steps and rows of a run."""

    def turn(self, weights: Sequence[float], seed: int, step: int) -> Mapping[int, float]:
        """The pools that fill the rows of a step, with their parts of the tokens, which add up to 1."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchLevel:
    """Each step draws one pool, for all rows (pre-training; paper, table 1).

    Steps come in cycles as long as the weights in whole numbers add up to; in each a pool has exactly its share, at
    places that are shuffled anew.
    """

    def turn(self, weights: Sequence[float], seed: int, step: int) -> Mapping[int, float]:
        """See :class:`Mixing`."""
        cycle = sum(whole(weights))
        place, number = Shuffle(cycle, seed)[step]
        return {Interleave(weights)[number * cycle + place][0]: 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balanced:
    """Every row takes from all pools, each by its share of the tokens (fine-tuning; paper, table 1)."""

    def turn(self, weights: Sequence[float], seed: int, step: int) -> Mapping[int, float]:
        """See :class:`Mixing`."""
        exact = whole(weights)
        return {pool: weight / sum(exact) for pool, weight in enumerate(exact)}


class Owed:
    """Tokens that each pool of a lane is behind its share; they add up to 0.

    The next sample comes from the pool that is furthest behind, of those that have one that fits.  What a row could not
    even out the next one does.
    """

    def __init__(self, owed: Sequence[float]):
        self._owed = list(owed)

    def preference(self, turn: Mapping[int, float]) -> list[int]:
        """The pools of a turn, the one furthest behind first; by weight where they are equal."""
        return sorted(turn, key=lambda pool: (-self._owed[pool], -turn[pool], pool))

    def take(self, turn: Mapping[int, float], pool: int, tokens: int) -> None:
        """A sample of so many tokens went into the row."""
        for each, share in turn.items():
            self._owed[each] += share * tokens
        self._owed[pool] -= tokens

    def state(self) -> list[float]:
        """As plain data."""
        return list(self._owed)


def check_weights(weights: Sequence[float]) -> None:
    """Checks that there are pools and that all have weight.

    Raises:
      InputError: there is none, or a weight is not positive.
    """
    if not weights:
        raise InputError("data: no pools of samples; name at least one")
    whole(weights)
