"""Progress of a long loop: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yields ``items``; says on stderr how many of ``total`` are done.  Loops under ten seconds print no lines."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, leave=False)
        return
    last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
            last = time.monotonic()
