"""Timing of device work: warm calls until their results are there, and their spread."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

SHORTEST_SAMPLE = 0.02
"""Seconds that a sample lasts at least: shorter calls are repeated inside it, so that starting one is hidden."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call in each sample, in the order in which they were taken."""

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("a timing needs at least one sample")

    @property
    def median(self) -> float:
        """Half of the samples took longer."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The fastest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The slowest sample."""
        return max(self.samples)

    def to_json(self) -> dict[str, Any]:
        """Median, ends and number of samples."""
        return {"median_s": self.median, "min_s": self.low, "max_s": self.high, "samples": len(self.samples)}


def time_calls(
    call: Callable[[], Any],
    *,
    repeats: int = 5,
    shortest: float = SHORTEST_SAMPLE,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times ``call`` after two calls that are not counted: one may compile, the second says how long a call takes.

    A sample ends when what its last call returned is ready (``jax.block_until_ready``).
    """
    jax.block_until_ready(call())
    count = max(1, round(shortest / max(_seconds(call, 1, clock), 1e-9)))
    return Timing(tuple(_seconds(call, count, clock) for _ in range(repeats)))


def time_alternated(
    calls: dict[str, Callable[[], Any]], *, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Times several calls in turn, one of each a round, so that a slow spell of the machine meets all of them.

    Each is called twice before; the calls wait for their own results.
    """
    for call in calls.values():
        call()
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(_seconds(call, 1, clock))
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def _seconds(call: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(count - 1):
        call()
    jax.block_until_ready(call())
    return (clock() - start) / count
