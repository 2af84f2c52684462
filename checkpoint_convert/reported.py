"""Iteration that reports its progress on stderr."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mammoth_jax.core.progress import ProgressLine

T = TypeVar("T")


def reported(items: Iterable[T], total: int, stage: str) -> Iterator[T]:
    """Yields ``items`` and reports after each how many of ``total`` are done."""
    line = ProgressLine()
    for done, item in enumerate(items, 1):
        yield item
        del item
        line(stage, done, total)
