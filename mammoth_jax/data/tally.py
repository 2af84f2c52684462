"""What became of the records that were read, by source, and when too many of them were bad."""

import dataclasses
from collections.abc import Sequence

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.record import OfFiles

FATES = ("delivered", "bad", "small", "surplus")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadInput:
    """How much unreadable input is skipped: a ``share`` of each source's records, and of its files.

    The share is of at least ``after`` records, so that one bad picture at the start is not too many.
    """

    share: float = 0.01
    after: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.after < 1:
            raise InputError(
                f"bad input: share {self.share} must be within 0 and 1, after {self.after} at least 1"
            )


class Tally:
    """Counts a source: ``delivered`` in batches, ``bad``, too ``small`` for the shape, ``surplus`` of their bucket."""

    def __init__(self, names: Sequence[str], limit: BadInput):
        self._names = list(names)
        self._limit = limit
        self._counts: list[dict[str, int]] = [dict.fromkeys(FATES, 0) for _ in names]
        self._examples: dict[int, str] = {}

        self._waiting = [0] * len(names)

    def wait(self, source: int) -> None:
        """One more record that waits for its batch."""
        self._waiting[source] += 1

    def deliver(self, source: int) -> None:
        """A record that waited is delivered."""
        self._waiting[source] -= 1
        self.add(source, "delivered")

    def add(self, source: int, fate: str) -> None:
        """One more record of a source."""
        self._counts[source][fate] += 1

    def add_bad(self, source: int, message: str) -> None:
        """One more record that cannot be read.

        Raises:
          InputError: they are too many; it names the worst source, its counts and an example.
        """
        self.add(source, "bad")
        self._examples.setdefault(source, message)
        bad, read = self._bad(source)
        if bad > self._limit.share * max(read, self._limit.after):
            worst = max(self._examples, key=lambda s: self._bad(s)[0] / self._bad(s)[1])
            bad, read = self._bad(worst)
            raise InputError(
                f"source {self._names[worst]}: {bad} of {read} records are unreadable, more than the share of "
                f"{self._limit.share} that is skipped; the first: {self._examples[worst]}"
            )

    def _bad(self, source: int) -> tuple[int, int]:
        """How many records of a source are bad, of how many that were read."""
        counts = self._counts[source]
        return counts["bad"], sum(counts.values()) + self._waiting[source]

    def report(self) -> dict[str, float]:
        """``data/SOURCE/delivered``, its ``share`` of all that was delivered, and the other counts that are not 0."""
        total = max(sum(c["delivered"] for c in self._counts), 1)
        out: dict[str, float] = {}
        for name, counts in zip(self._names, self._counts, strict=True):
            out[f"data/{name}/share"] = counts["delivered"] / total
            out |= {f"data/{name}/{fate}": n for fate, n in counts.items() if n or fate == "delivered"}
        return out

    def state(self) -> list[list[int]]:
        """Counts as plain data, in the order of the sources; records that wait will be read again."""
        return [[counts[fate] for fate in FATES] for counts in self._counts]

    def restore(self, state: Sequence[Sequence[int]]) -> None:
        """Takes over counts."""
        self._counts = [dict(zip(FATES, counts, strict=True)) for counts in state]
        self._waiting = [0] * len(self._names)
        self._examples = {}


def check_files(sources: Sequence[object], limit: BadInput) -> None:
    """Refuses sources, of records or examples, of which too many files cannot be read.

    Raises:
      InputError: it names the worst of them, its counts and an example.
    """
    sharded = [s for s in sources if isinstance(s, OfFiles)]
    bad = [s for s in sharded if len(s.problems) > limit.share * s.files]
    if bad:
        worst = max(bad, key=lambda s: len(s.problems) / s.files)
        file, what = next(iter(worst.problems.items()))
        raise InputError(
            f"source {worst.name}: {len(worst.problems)} of {worst.files} files are unreadable, more than the share of "
            f"{limit.share} that is skipped; the first: {file}: {what}"
        )
