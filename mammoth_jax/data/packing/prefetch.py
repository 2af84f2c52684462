"""The next batch made while a step runs."""

import concurrent.futures
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from mammoth_jax.data.packing.loader import JointLoader
from mammoth_jax.data.packing.rows import Batch


class Prefetched:
    """A loader one batch ahead, filled, encoded and written by a thread of its own.

    ``state()`` and ``report()`` are those after the batch that was returned last, so a batch that waits is made again
    after a resume.
    """

    def __init__(self, loader: JointLoader):
        self._loader = loader
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._next: concurrent.futures.Future[tuple[Batch, dict[str, Any], dict[str, float]]] | None = None
        self._state, self._report = loader.state(), loader.report()
        self.close = weakref.finalize(self, _close, self._thread, loader)

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> Batch:
        """The next batch; see :class:`JointLoader`."""
        waiting = self._next or self._thread.submit(_make, self._loader)
        self._next = None  # one that failed is not asked for again
        batch, self._state, self._report = waiting.result()
        self._next = self._thread.submit(_make, self._loader)
        return batch

    def state(self) -> dict[str, Any]:
        """See :meth:`JointLoader.state`."""
        return self._state

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """See :meth:`JointLoader.restore`."""
        if self._next is not None:
            concurrent.futures.wait([self._next])
            self._next = None
        self._loader.restore(states)
        self._state, self._report = self._loader.state(), self._loader.report()

    def report(self) -> dict[str, float]:
        """See :meth:`JointLoader.report`."""
        return self._report


def _make(loader: JointLoader) -> tuple[Batch, dict[str, Any], dict[str, float]]:
    return next(loader), loader.state(), loader.report()


def _close(thread: concurrent.futures.ThreadPoolExecutor, loader: JointLoader) -> None:
    thread.shutdown(wait=False, cancel_futures=True)
    loader.close()
