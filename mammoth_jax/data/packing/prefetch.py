"""The next batches made while a step runs."""

import concurrent.futures
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from mammoth_jax.data.packing.loader import JointLoader
from mammoth_jax.data.packing.rows import Batch

AHEAD = 2
"""Batches made beforehand: the loop asks for the next one as soon as a step is dispatched, long before it has run,
and would wait for one that is begun only then."""


class Prefetched:
    """A loader some batches ahead, filled, encoded and written by a thread of its own.

    ``state()`` and ``report()`` are those after the batch that was returned last, so batches that wait are made again
    after a resume.
    """

    def __init__(self, loader: JointLoader):
        self._loader = loader
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._made: deque[concurrent.futures.Future[tuple[Batch, dict[str, Any], dict[str, float]]]] = deque()
        self._state, self._report = loader.state(), loader.report()
        self.close = weakref.finalize(self, _close, self._thread, loader)

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> Batch:
        """The next batch; see :class:`JointLoader`."""
        self._make(1)
        try:
            batch, self._state, self._report = self._made.popleft().result()
        except Exception:
            self._drop()  # what follows one that failed is not handed out
            raise
        self._make(AHEAD)
        return batch

    def state(self) -> dict[str, Any]:
        """See :meth:`JointLoader.state`."""
        return self._state

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """See :meth:`JointLoader.restore`."""
        self._drop()
        self._loader.restore(states)
        self._state, self._report = self._loader.state(), self._loader.report()

    def report(self) -> dict[str, float]:
        """See :meth:`JointLoader.report`."""
        return self._report

    def _make(self, ahead: int) -> None:
        """Has ``ahead`` batches made or under way."""
        while len(self._made) < ahead:
            self._made.append(self._thread.submit(_make, self._loader))

    def _drop(self) -> None:
        """Forgets what waits, after the thread is done with it."""
        concurrent.futures.wait([made for made in self._made if not made.cancel()])
        self._made.clear()


def _make(loader: JointLoader) -> tuple[Batch, dict[str, Any], dict[str, float]]:
    return next(loader), loader.state(), loader.report()


def _close(thread: concurrent.futures.ThreadPoolExecutor, loader: JointLoader) -> None:
    thread.shutdown(wait=False, cancel_futures=True)
    loader.close()
