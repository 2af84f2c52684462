"""Where a reader is in an order: every number below a low-water mark is used up, and some above it.

Numbers count through the *global* order, which several hosts share in runs of ``block``: host ``index`` of ``count``
owns the numbers with ``n // block % count == index``.  With a block of one host's batch, batch ``t`` of all hosts
together is what one host would read as its batch ``t``.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class HostShare:
    """The numbers of the global order that one host reads."""

    index: int = 0
    count: int = 1
    block: int = 1

    def owns(self, n: int) -> bool:
        """Whether number ``n`` is this host's."""
        return n // self.block % self.count == self.index

    def number(self, k: int) -> int:
        """The ``k``-th of its numbers."""
        turn, offset = divmod(k, self.block)
        return (turn * self.count + self.index) * self.block + offset

    def rank(self, n: int) -> int:
        """How many of its numbers are below ``n``."""
        turn, offset = divmod(n, self.block * self.count)
        return turn * self.block + min(max(offset - self.index * self.block, 0), self.block)


class Position:
    """What one host has used up of its share."""

    def __init__(self, share: HostShare, mark: int = 0, above: Iterable[int] = ()):
        """All numbers below ``mark`` and those in ``above`` are used up; numbers of other hosts are ignored."""
        self.share = share
        self._rank = share.rank(mark)
        self._above = {share.rank(n) for n in above if n >= mark and share.owns(n)}
        self._settle()

    def _settle(self) -> None:
        while self._rank in self._above:
            self._above.remove(self._rank)
            self._rank += 1

    @property
    def mark(self) -> int:
        """The first number that is not used up."""
        return self.share.number(self._rank)

    @property
    def above(self) -> list[int]:
        """Numbers over the mark that are used up."""
        return sorted(self.share.number(rank) for rank in self._above)

    def use(self, n: int) -> None:
        """Marks a number as used up."""
        self._above.add(self.share.rank(n))
        self._settle()

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {"host": dataclasses.asdict(self.share), "mark": self.mark, "above": self.above}


def merge_positions(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The positions of all hosts as one, from which any number of hosts can go on.

    Raises:
      InputError: a host is missing, or they are of different runs.
    """
    hosts = [HostShare(**state["host"]) for state in states]
    expected = {(i, len(states), hosts[0].block) for i in range(len(states))}
    if {(h.index, h.count, h.block) for h in hosts} != expected:
        raise InputError(
            f"data positions of hosts {sorted(h.index for h in hosts)} do not make up one run of "
            f"{hosts[0].count} hosts; give each host's position once"
        )
    positions = [Position(h, state["mark"], state["above"]) for h, state in zip(hosts, states, strict=True)]
    low = min(p.mark for p in positions)
    above = {n for p in positions for n in p.above}
    for host, position in zip(hosts, positions, strict=True):
        above.update(host.number(k) for k in range(host.rank(low), host.rank(position.mark)))
    return Position(HostShare(), low, above).state()
