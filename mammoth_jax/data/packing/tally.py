"""What became of the samples of each pool, and how full the rows were."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.packing.lengths import Lengths
from mammoth_jax.data.tally import BadInput

PACKED, TOKENS, BAD = "packed", "tokens", "bad"


class PackingTally:
    """Counts by pool and source: ``packed`` samples and their ``tokens``, ``cut`` texts, ``bad`` records, and what was
    left out for a reason (``filtered: ...``, ``too long: ...``); and the lengths that rows took.
    """

    def __init__(self, names: Sequence[tuple[str, Sequence[str]]], budget: Lengths, limit: BadInput):
        """``names``: of each pool, and of its sources."""
        self._names = [(pool, list(sources)) for pool, sources in names]
        self._budget, self._limit = np.asarray(budget, np.int64), limit
        self._counts = [[collections.Counter[str]() for _ in sources] for _, sources in names]
        self._examples: dict[tuple[int, int], str] = {}
        self._rows, self._taken = 0, np.zeros(len(budget), np.int64)

    def pack(self, pool: int, source: int, tokens: int, fate: str) -> None:
        """A sample went into a row, ``whole`` or ``cut``."""
        counts = self._counts[pool][source]
        counts[PACKED] += 1
        counts[TOKENS] += tokens
        if fate != "whole":
            counts[fate] += 1

    def row(self, taken: Sequence[Lengths]) -> None:
        """A row was filled with samples of these lengths."""
        self._rows += 1
        self._taken += np.asarray(taken, np.int64).reshape(-1, len(self._budget)).sum(axis=0)

    def leave_out(self, pool: int, source: int, fate: str, message: str = "") -> None:
        """A record went into no row.

        Raises:
          InputError: too many are bad; it names the worst source, its counts and an example.
        """
        self._counts[pool][source][fate] += 1
        if fate != BAD:
            return
        self._examples.setdefault((pool, source), message)
        bad, read = self._bad(pool, source)
        if bad > self._limit.share * max(read, self._limit.after):
            worst = max(self._examples, key=lambda at: self._bad(*at)[0] / self._bad(*at)[1])
            bad, read = self._bad(*worst)
            name, sources = self._names[worst[0]]
            raise InputError(
                f"source {sources[worst[1]]} of {name}: {bad} of {read} records are unreadable, more than the share of "
                f"{self._limit.share} that is skipped; the first: {self._examples[worst]}"
            )

    def _bad(self, pool: int, source: int) -> tuple[int, int]:
        counts = self._counts[pool][source]
        return counts[BAD], sum(n for name, n in counts.items() if name not in (TOKENS, "cut"))

    def report(self) -> dict[str, float]:
        """Numbers by pool and source, and the part of each array that is filled.

        ``data/POOL/share`` is its part of all tokens packed, ``data/POOL/SOURCE/share`` a source's.
        """
        total = max(sum(c[TOKENS] for pool in self._counts for c in pool), 1)
        out: dict[str, float] = {}
        for (name, sources), pool in zip(self._names, self._counts, strict=True):
            out[f"data/{name}/share"] = sum(c[TOKENS] for c in pool) / total
            for source, counts in zip(sources, pool, strict=True):
                out[f"data/{name}/{source}/share"] = counts[TOKENS] / total
                out |= {f"data/{name}/{source}/{fate}": n for fate, n in sorted(counts.items())}
        for name, taken, room in zip(Lengths._fields, self._taken, self._budget, strict=True):
            if self._rows and room:
                out[f"data/full/{name}"] = float(taken / (self._rows * room))
        return out

    def state(self) -> dict[str, Any]:
        """As plain data."""
        counts = [[dict(c) for c in pool] for pool in self._counts]
        return {"counts": counts, "rows": self._rows, "taken": self._taken.tolist()}

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Takes over the sum of these states; none of them starts from 0."""
        for number, pool in enumerate(self._counts):
            for source, counts in enumerate(pool):
                counts.clear()
                for state in states:
                    counts.update(state["counts"][number][source])
        self._rows = sum(state["rows"] for state in states)
        self._taken = np.sum([np.zeros_like(self._taken), *(s["taken"] for s in states)], axis=0)
        self._examples = {}
