"""A lane: the part of every pool that fills one row of each batch.

Row ``j`` of ``R`` in the batches of all hosts together is lane ``j``.  Of each pool it reads the numbers ``n`` with
``n % R == j`` in their order, keeps a window of them, and takes from it what fits.  So a row follows from the orders
and from what was used of them, whoever reads them and whenever.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import LeftOut
from mammoth_jax.data.packing.fill import Window, fill_row
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.shares import Owed
from mammoth_jax.data.packing.tally import PackingTally
from mammoth_jax.data.packing.workers import Pending, Ready, Workers
from mammoth_jax.data.position import HostShare, Position, merge_positions

PATIENCE = 1000
"""Samples of a pool that may be left out in a row."""


class Lane:
    """Fills rows."""

    def __init__(
        self,
        share: HostShare,
        state: Mapping[str, Any],
        packing: PackingConfig,
        workers: Workers,
        tally: PackingTally,
        ahead: int,
    ):
        """Goes on from a ``state``; ``ahead`` samples of each pool are asked for before they are needed."""
        self._packing, self._tally = packing, tally
        self._positions = [Position(share, each["mark"], each["above"]) for each in state["positions"]]
        self._owed = Owed(state["owed"])
        self._windows = {
            pool: Window(_Stream(pool, position, workers, tally, ahead).read, packing.window)
            for pool, position in enumerate(self._positions)
        }

    def row(self, turn: Mapping[int, float]) -> list[tuple[int, Ready]]:
        """The next row: samples with their pools."""
        row = fill_row(self._windows, turn, self._owed, self._packing.budget)
        for pool, ready in row:
            self._positions[pool].use(ready.number)
            self._tally.pack(pool, ready.source, ready.lengths.tokens, ready.sample.fate)
        self._tally.row([ready.lengths for _, ready in row])
        return row

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {"positions": [p.state() for p in self._positions], "owed": self._owed.state()}


class _Stream:
    """The samples of a pool in a lane that can be packed, in their order."""

    def __init__(self, pool: int, position: Position, workers: Workers, tally: PackingTally, ahead: int):
        self._pool, self._position, self._workers, self._tally = pool, position, workers, tally
        self._used = frozenset(position.above)
        self._next = position.share.rank(position.mark)
        self._asked: collections.deque[Pending] = collections.deque()
        self._ahead = ahead

    def read(self) -> Ready:
        """The next one.

        Raises:
          InputError: too many records are bad, or all are left out.
        """
        for _ in range(PATIENCE):
            while len(self._asked) <= self._ahead:
                self._ask()
            found = self._asked.popleft().result()
            if isinstance(found, Ready):
                return found
            self._leave_out(found)
        raise InputError(
            f"pool {self._pool}: {PATIENCE} samples one after the other were left out: {self._tally.report()}; "
            "give longer rows, or other filters"
        )

    def _ask(self) -> None:
        number = self._position.share.number(self._next)
        self._next += 1
        if number not in self._used:
            self._asked.append(self._workers.submit(self._pool, number))

    def _leave_out(self, found: LeftOut) -> None:
        self._position.use(found.number)
        self._tally.leave_out(self._pool, found.source, found.fate, found.message)


def first_lane_state(pools: int) -> dict[str, Any]:
    """The state of a lane that has read nothing."""
    return {"positions": [{"mark": 0, "above": []}] * pools, "owed": [0.0] * pools}


def divide_lanes(states: Sequence[Mapping[str, Any]], lanes: int) -> list[dict[str, Any]]:
    """The states of all lanes of a run for another number of lanes; the same for the same number.

    Raises:
      InputError: a lane is missing.
    """
    pools = len(states[0]["owed"])
    merged = [merge_positions([state["positions"][pool] for state in states]) for pool in range(pools)]
    if lanes == len(states):
        return [{"positions": state["positions"], "owed": list(state["owed"])} for state in states]
    owed = [sum(state["owed"][pool] for state in states) / lanes for pool in range(pools)]
    return [{"positions": merged, "owed": owed} for _ in range(lanes)]
