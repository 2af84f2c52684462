"""Samples read and laid out ahead of the step, by threads or processes that serve all lanes of a host."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import EndWithParent, LeftOut, Processes, Threads
from mammoth_jax.data.example import Filtered, Place
from mammoth_jax.data.mixing import Order
from mammoth_jax.data.packing.dropout import GuidanceDropout
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig
from mammoth_jax.data.packing.sample import Prepared, TooLong, prepare
from mammoth_jax.data.record import UnreadableRecord
from mammoth_jax.data.task_source import ExampleSource


@dataclasses.dataclass(frozen=True, eq=False)
class OpenPool:
    """Samples that are mixed with each other in one order: sources with unique names, and that order."""

    name: str
    weight: float
    sources: Sequence[ExampleSource]
    names: Sequence[str]
    order: Order


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """A sample ready for a row: its number in its pool's order, and its source."""

    number: int
    source: int
    sample: Prepared

    @property
    def lengths(self) -> Lengths:
        """What it takes."""
        return self.sample.lengths


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """What a worker does: sample ``number`` of a pool from its files to arrays.  It depends on nothing else."""

    pools: Sequence[OpenPool]
    geometry: Geometry
    packing: PackingConfig
    dropout: GuidanceDropout
    seed: int

    def __call__(self, pool: int, number: int) -> Ready | LeftOut:
        """The sample, or why it is left out."""
        read = self.pools[pool]
        draw = read.order[number]
        place = Place(f"{self.seed}/{read.name}/{read.names[draw.source]}/{draw.index}/{draw.epoch}")
        dropped = self.dropout.draw(place.draw("guidance"), place.draw("references"))
        try:
            example = read.sources[draw.source].example(draw.index, place)
            return Ready(number, draw.source, prepare(example, self.geometry, self.packing, dropped))
        except Filtered as error:
            return LeftOut(number, draw.source, f"filtered: {error.reason}")
        except TooLong as error:
            return LeftOut(number, draw.source, f"too long: {error.where}")
        except (UnreadableRecord, InputError) as error:
            return LeftOut(number, draw.source, "bad", str(error))


class Pending(Protocol):
    """A sample that is being read."""

    def result(self) -> Ready | LeftOut:
        """Waits for it."""
        ...


class Workers(Protocol):
    """Whoever reads samples."""

    def submit(self, pool: int, number: int) -> Pending:
        """Starts to read a sample."""
        ...

    def close(self) -> None:
        """Ends the workers."""
        ...


def start_workers(reader: Reader, workers: Threads | Processes) -> Workers:
    """Threads or processes that read; without any, samples are read when they are waited for."""
    if isinstance(workers, Threads):
        return (
            _Pool(concurrent.futures.ThreadPoolExecutor(workers.count), reader)
            if workers.count
            else _Here(reader)
        )
    executor = concurrent.futures.ProcessPoolExecutor(
        workers.count,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy a process that holds devices
        initializer=_start,
        initargs=(reader, os.getpid()),
    )
    return _Pool(executor, _read)


class _Pool:
    """An executor's workers."""

    def __init__(self, executor: concurrent.futures.Executor, read: Callable[[int, int], Ready | LeftOut]):
        self._executor, self._read = executor, read

    def submit(self, pool: int, number: int) -> Pending:
        return self._executor.submit(self._read, pool, number)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class _Here:
    """No workers."""

    def __init__(self, reader: Reader):
        self._reader = reader

    def submit(self, pool: int, number: int) -> Pending:
        return _Later(functools.partial(self._reader, pool, number))

    def close(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class _Later:
    read: Callable[[], Ready | LeftOut]

    def result(self) -> Ready | LeftOut:
        return self.read()


_READER: list[Reader] = []
"""A worker process's own; sent to it once."""


def _start(reader: Reader, parent: int) -> None:
    _READER[:] = [reader]
    EndWithParent(parent)(0, 1)


def _read(pool: int, number: int) -> Ready | LeftOut:
    return _READER[0](pool, number)
