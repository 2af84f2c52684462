"""Iteration that reports its progress on stderr."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mammoth_jax.core.progress import ProgressLine

T = TypeVar("T")


def reported(items: Iterable[T], total: int, stage: str) -> Iterator[T]:
    """Yields ``items``, keeping none, and reports after each how many of ``total`` are done."""
    line = ProgressLine()
    done = 0  # not enumerate, which keeps the last item until the next one is made
    for item in items:
        yield item
        del item
        done += 1
        line(stage, done, total)
