"""How far a long piece of work is: what pipelines report and what a terminal shows."""

import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Receives ``done`` of ``total`` units of the named stage; called from the host, between device programs."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports progress; ``done == total`` ends the stage."""
        ...


class ProgressLine:
    """One line a stage on a stream: rewritten in place on a terminal, printed once at the end of a stage elsewhere.

    Stages follow each other: a stage's time runs from the end of the one before.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._start = time.perf_counter()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See :class:`Progress`."""
        finished = done >= total
        seconds = time.perf_counter() - self._start
        text = f"{stage}: {done}/{total}, {seconds:.1f} s"
        if self._live:
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if finished else ""))
        elif finished:
            self._stream.write(f"{text}\n")
        if finished:
            self._start = time.perf_counter()
        self._stream.flush()
