"""Records read, decoded and brought to shape ahead of the step, in threads or processes.

Elements come in the order of the host's numbers, whatever the workers do.  The work is grain's: a map over random
access, prefetched.  It keeps no position of its own: a reader starts at the number that it is given.
"""

import dataclasses
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import grain
import numpy as np
from absl import flags

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.mixing import Draw, Order
from mammoth_jax.data.position import HostShare
from mammoth_jax.data.record import Record, Source, UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threads:
    """Decoding in ``count`` threads, up to ``ahead`` batches before they are asked for; 0: when they are.

    Pillow decodes and scales outside the interpreter's lock, so threads share the cores.
    """

    count: int = 4
    ahead: int = 2

    def __post_init__(self) -> None:
        if self.count < 0 or self.ahead < 1:
            raise InputError(
                f"workers: count {self.count} must not be negative, ahead {self.ahead} at least 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Decoding in ``count`` processes: for sources that render or parse in Python.

    They start afresh (never by forking a process that holds devices) and end with the process that started them,
    however that ends.  The launching script must be importable (``if __name__ == "__main__":``).
    """

    count: int = 2
    ahead: int = 2

    def __post_init__(self) -> None:
        if self.count < 1 or self.ahead < 1:
            raise InputError(f"workers: count {self.count} and ahead {self.ahead} must be at least 1")


class TooSmall(Exception):
    """A picture that would have to grow more than allowed."""


class Transform(Protocol):
    """A record to arrays of one of few shapes."""

    def __call__(self, record: Record, place: tuple[float, float]) -> tuple[int, dict[str, np.ndarray]]:
        """The number of the shape and the arrays; ``place`` is two numbers in [0, 1) of this sample's own.

        Raises:
          UnreadableRecord: the record cannot be used.
          TooSmall: its picture is too small.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Sample:
    """A record ready for a batch of shape number ``bucket``."""

    number: int
    source: int
    bucket: int
    arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A record that goes into no batch: ``used`` before, ``bad`` (and why) or ``small``."""

    number: int
    source: int
    fate: str
    message: str = ""


class AsListed:
    """The order of a single source as it is."""

    def __getitem__(self, n: int) -> Draw:
        return Draw(0, n, 0)


@dataclasses.dataclass(frozen=True)
class Elements:
    """What becomes of each of a host's numbers from its ``first``-th on; ``used`` ones are not read again."""

    sources: Sequence[Source]
    order: Order | AsListed
    transform: Transform
    share: HostShare
    seed: int
    first: int
    used: frozenset[int] = frozenset()
    length: int = sys.maxsize

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample | LeftOut:
        number = self.share.number(self.first + index)
        draw = self.order[number]
        if number in self.used:
            return LeftOut(number, draw.source, "used")
        try:
            record = self.sources[draw.source][draw.index]
            place = _uniform(f"{self.seed}/{draw.source}/{record.key}/{draw.epoch}")
            return Sample(number, draw.source, *self.transform(record, place))
        except UnreadableRecord as error:
            return LeftOut(number, draw.source, "bad", str(error))
        except TooSmall:
            return LeftOut(number, draw.source, "small")


def _uniform(name: str) -> tuple[float, float]:
    """Two numbers in [0, 1) that depend on the name alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big") / 2**32, int.from_bytes(digest[4:], "big") / 2**32


def read_ahead(
    elements: Elements, workers: Threads | Processes, batch_size: int
) -> grain.DatasetIterator[Sample | LeftOut]:
    """The elements in their order, prepared by workers that ``close()`` ends."""
    data = grain.MapDataset.source(elements)
    depth = workers.ahead * batch_size
    if isinstance(workers, Threads):
        threads = grain.ReadOptions(num_threads=workers.count, prefetch_buffer_size=depth)
        return iter(data.to_iter_dataset(threads))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain hands its debugging flags to the processes, parsed or not
    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.MultiprocessingOptions(
        num_workers=workers.count, per_worker_buffer_size=max(depth // workers.count, 1)
    )
    end = EndWithParent(os.getpid())
    return iter(data.to_iter_dataset(alone).mp_prefetch(options, worker_init_fn=end))


def read_in_order(
    source: Source, numbers: range, transform: Transform, workers: Threads | Processes, batch_size: int
) -> Iterator[Sample | LeftOut]:
    """Records of one source once, as they are listed, prepared ahead; a sample's ``number`` is the record's."""
    elements = Elements([source], AsListed(), transform, HostShare(), 0, numbers.start, length=len(numbers))
    found = read_ahead(elements, workers, batch_size)
    try:
        yield from found
    finally:
        found.close()


@dataclasses.dataclass(frozen=True)
class EndWithParent:
    """Makes a worker process end when its parent does: a killed one cannot tell it to.  A signal to the whole group
    (Ctrl-C of a terminal, SIGTERM of ``timeout`` or a launcher) is the parent's to answer, who may still need what is
    being read: so the worker leaves the group."""

    parent: int

    def __call__(self, worker: int, workers: int) -> None:
        """Starts the watch in the worker process (its main thread)."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.setpgrp()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(1)
        os._exit(1)
