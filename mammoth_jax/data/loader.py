"""Batches of fixed shapes out of weighted sources, from any position of one global order.

The order of records is a function of the configuration and the seed (``mixing``).  A host reads its numbers of that
order ahead of time, keeps one queue a shape, and serves the shape that the schedule names for the step, the same on
all hosts.  A batch holds the first unused records of its shape, so it depends on which records were used and on
nothing else: not on the workers, nor on how far they have read.
"""

import collections
import dataclasses
import json
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.buckets import Shapes, plan_shapes
from mammoth_jax.data.decoding import Elements, LeftOut, Processes, Sample, Threads, read_ahead
from mammoth_jax.data.mixing import Draw, Order
from mammoth_jax.data.position import HostShare, Position, merge_positions
from mammoth_jax.data.record import ShardedSource
from mammoth_jax.data.sources import SourceConfig, open_sources
from mammoth_jax.data.tally import BadInput, Tally, check_files

PATIENCE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from, which shapes they get, who decodes them and how much may be unreadable.

    A shape's queue holds up to ``queue`` batches; what comes on top is left out and counted as surplus.
    """

    sources: tuple[SourceConfig, ...]
    shape: Shapes
    workers: Threads | Processes = Threads()
    bad_input: BadInput = BadInput()
    queue: int = 8


class Loader:
    """An endless iterator of host-local batches: ``picture`` (uint8 ``[b, height, width, 3]``), or the arrays of
    precomputed shards, and ``number`` (uint32 ``[b]``, the records' numbers in the global order, which name them
    whatever the hosts).

    ``close()`` ends the workers; so does the end of the program.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        models: Mapping[str, str] = {},
    ):
        """``batch_size`` is this host's part of the batch; ``models`` are the fingerprints, by role, of the models
        that precomputed arrays must be of.

        Raises:
          InputError: a source is missing, empty, too broken or of other models.
        """
        if batch_size < 1 or not 0 <= process_index < process_count:
            raise InputError(
                f"batch of {batch_size} on host {process_index} of {process_count}: not a part of a batch"
            )
        self._config, self._batch_size, self._seed = config, batch_size, seed
        self._share = HostShare(process_index, process_count, batch_size)
        self._sources, self._names, tree = open_sources(config.sources, models)
        check_files(self._sources, config.bad_input)
        self._order = Order(tree, seed)
        self._fingerprint = _fingerprint(self._names, tree, seed, config.shape)
        self._tally = Tally(self._names, config.bad_input)
        self._transform, self._shapes, self._schedule = plan_shapes(
            config.shape, self._sources, tree, self._order
        )
        self._start(Position(self._share))

    def _start(self, position: Position) -> None:
        """Reads on from a position."""
        self._position = position
        self._queues = [collections.deque[Sample]() for _ in self._shapes]
        first = self._share.rank(position.mark)
        elements = Elements(
            self._sources,
            self._order,
            self._transform,
            self._share,
            self._seed,
            first,
            frozenset(position.above),
        )
        self._elements = read_ahead(elements, self._config.workers, self._batch_size)
        self.close = weakref.finalize(self, self._elements.close)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch.

        Raises:
          InputError: too many records are unreadable, or none fits the shape.
        """
        bucket = next(self._schedule)
        queue = self._queues[bucket]
        most = (PATIENCE + self._config.queue) * self._batch_size * len(self._queues)
        patience = most
        while len(queue) < self._batch_size:
            if patience == 0:
                raise InputError(
                    f"no batch of shape {self._shapes[bucket]} among {most} records: {json.dumps(self.report())}; "
                    "choose other shapes, weights of shapes or max_upscale"
                )
            patience -= 1
            self._read()
        samples = [queue.popleft() for _ in range(self._batch_size)]
        for sample in samples:
            self._position.use(sample.number)
            self._tally.deliver(sample.source)
        numbers = np.array([s.number for s in samples], np.uint32)
        return {"number": numbers} | {k: np.stack([s.arrays[k] for s in samples]) for k in samples[0].arrays}

    def _read(self) -> None:
        """Takes the next element from the workers and puts it where it belongs."""
        element = next(self._elements)
        if isinstance(element, LeftOut):
            if element.fate == "used":  # the position knows it
                return
            if element.fate == "bad":
                self._tally.add_bad(element.source, element.message)
            else:
                self._tally.add(element.source, element.fate)
            self._position.use(element.number)
        elif len(self._queues[element.bucket]) >= self._config.queue * self._batch_size:
            self._tally.add(element.source, "surplus")
            self._position.use(element.number)
        else:
            self._tally.wait(element.source)
            self._queues[element.bucket].append(element)

    def draw(self, number: int) -> Draw:
        """Which record of which source a batch's ``number`` is."""
        return self._order[number]

    def state(self) -> dict[str, Any]:
        """The position after the batch that was returned last, as plain data.

        Of several hosts each has its own; :meth:`restore` wants them all.
        """
        return {
            "order": self._fingerprint,
            "position": self._position.state(),
            "schedule": self._schedule.state(),
            "counts": self._tally.state(),
        }

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from the states of all hosts that saved them, however many they were.

        Raises:
          InputError: they are of other data, or not of all hosts.
        """
        state = merge_states(states)
        if state["order"] != self._fingerprint:
            raise InputError(
                "the checkpoint's data position is of other sources, weights, lengths, shapes or another seed; "
                f"restore them or start anew (checkpoint {state['order']}, now {self._fingerprint})"
            )
        self.close()
        self._schedule.restore(state["schedule"])
        if self._share.index == 0:  # else every host would go on with the sum of all
            self._tally.restore(state["counts"])
        else:
            self._tally.restore([[0] * len(row) for row in state["counts"]])
        position = state["position"]
        self._start(Position(self._share, position["mark"], position["above"]))

    def report(self) -> dict[str, float]:
        """Numbers of this host by source, see :meth:`Tally.report`, and the ``bad_files`` of sources that have any."""
        out = self._tally.report()
        for name, source in zip(self._names, self._sources, strict=True):
            if isinstance(source, ShardedSource) and source.problems:
                out[f"data/{name}/bad_files"] = len(source.problems)
        return out


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The states of all hosts as one, from which any number of hosts can go on.

    Raises:
      InputError: a host is missing, or they are of different runs or steps.
    """
    same = {json.dumps((s["order"], s["schedule"])) for s in states}
    if len(same) != 1:
        raise InputError(f"data positions of {len(states)} hosts are not of one step of one run: {same}")
    counts = np.sum([s["counts"] for s in states], axis=0).tolist()
    return {
        **states[0],
        "position": merge_positions([s["position"] for s in states]),
        "counts": counts,
    }


def _fingerprint(names: Sequence[str], tree: Any, seed: int, shape: Any) -> str:
    """A checksum of all that the order of samples depends on."""
    return f"{zlib.crc32(repr((list(names), tree, seed, shape)).encode()):08x}"
