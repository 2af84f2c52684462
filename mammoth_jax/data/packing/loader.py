"""Packed batches of several tasks, from any position of their orders.

Each step, every lane of this host fills a row from the pools that have their turn; then the pictures that need it are
encoded, and the rows are written.  What a batch holds depends on the configuration, the seed and what was used before.
"""

import dataclasses
import json
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import Processes, Threads
from mammoth_jax.data.mixing import Branch, Leaf, Order
from mammoth_jax.data.packing.dropout import GuidanceDropout
from mammoth_jax.data.packing.encoding import encode_rows
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.lanes import Lane, divide_lanes, first_lane_state
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.pictures import PictureEncoder
from mammoth_jax.data.packing.rows import Batch, pack_rows
from mammoth_jax.data.packing.shares import Balanced, BatchLevel, check_weights
from mammoth_jax.data.packing.tally import PackingTally
from mammoth_jax.data.packing.workers import OpenPool, Reader, start_workers
from mammoth_jax.data.position import HostShare
from mammoth_jax.data.record import OfFiles
from mammoth_jax.data.sources import unique_names
from mammoth_jax.data.tally import BadInput, check_files
from mammoth_jax.data.task_source import ExampleSourceConfig, TaskSource

READ_AHEAD = 4
"""Samples of a pool and lane that are asked for early, for each of the workers' ``ahead``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Sources that are mixed with each other, sample by sample, whatever their tasks.

    ``weight`` is the pool's part of the steps (``BatchLevel``) or of each row's tokens (``Balanced``).
    """

    name: str
    sources: tuple[TaskSource, ...]
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointDataConfig:
    """Where samples come from, how they are mixed and packed, who reads them and how much may be unreadable."""

    pools: tuple[Pool, ...]
    packing: PackingConfig
    mixing: BatchLevel | Balanced = Balanced()
    dropout: GuidanceDropout = GuidanceDropout()
    workers: Threads | Processes = Threads()
    bad_input: BadInput = BadInput()

    def open(self, seed: int, models: Mapping[str, str] = {}) -> list[OpenPool]:
        """Opens all sources; ``models`` are fingerprints by role, for precomputed arrays.

        Raises:
          InputError: there is none, one of them is missing or empty, or too many of its files cannot be read.
        """
        check_weights([pool.weight for pool in self.pools])
        opened = [open_pool(pool.name, pool.sources, seed, pool.weight, models) for pool in self.pools]
        check_files([source for pool in opened for source in pool.sources], self.bad_input)
        return opened


def open_pool(
    name: str,
    sources: Sequence[ExampleSourceConfig],
    seed: int,
    weight: float = 1.0,
    models: Mapping[str, str] = {},
) -> OpenPool:
    """Opens the sources of a pool.

    Raises:
      InputError: there is none, or one of them is missing or empty.
    """
    if not sources:
        raise InputError(f"pool {name}: no sources; name at least one")
    opened = [config.open(models) for config in sources]
    leaves = tuple(
        Leaf(number, len(source), None if source.blocks is None else tuple(source.blocks))
        for number, source in enumerate(opened)
    )
    tree = Branch(leaves, tuple(config.weight for config in sources))
    names = unique_names([source.name for source in opened])
    return OpenPool(name, weight, opened, names, Order(tree, seed, f"/{name}"))


class JointLoader:
    """An endless iterator of this host's packed rows; names and shapes are in this package's README.

    ``close()`` ends the workers; so does the end of the program.
    """

    def __init__(
        self,
        config: JointDataConfig,
        pools: Sequence[OpenPool],
        geometry: Geometry,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        encoder: PictureEncoder | None = None,
    ):
        """``batch_size`` is this host's part of the rows; ``pools`` are the configuration's, open.

        Raises:
          InputError: no part of a batch, pools without weight, or patches that do not merge into tokens.
        """
        if batch_size < 1 or not 0 <= process_index < process_count:
            raise InputError(
                f"batch of {batch_size} rows on host {process_index} of {process_count}: not a part of a batch"
            )
        if geometry.tower is not None and config.packing.patches % geometry.template.merge_size**2:
            raise InputError(
                f"packing: patches {config.packing.patches} must be a multiple of the "
                f"{geometry.template.merge_size**2} that merge into a token"
            )
        self._weights = [pool.weight for pool in pools]
        check_weights(self._weights)
        self._config, self._geometry, self._encoder, self._seed = config, geometry, encoder, seed
        self._lanes_here = range(process_index * batch_size, (process_index + 1) * batch_size)
        self._lanes_total = batch_size * process_count
        self._host = (process_index, process_count)
        self._fingerprint = _fingerprint(pools, config, seed)
        names = [(pool.name, pool.names) for pool in pools]
        self._tally = PackingTally(names, config.packing.budget, config.bad_input)
        self._reader = Reader(pools, geometry, config.packing, config.dropout, seed)
        self._begin(0, [first_lane_state(len(pools))] * self._lanes_total)

    def _begin(self, step: int, lanes: Sequence[Mapping[str, Any]]) -> None:
        """Reads on from the states of all lanes."""
        self._step = step
        workers = start_workers(self._reader, self._config.workers)
        self.close = weakref.finalize(self, workers.close)
        ahead = READ_AHEAD * self._config.workers.ahead
        self._lanes = [
            Lane(HostShare(j, self._lanes_total), lanes[j], self._config.packing, workers, self._tally, ahead)
            for j in self._lanes_here
        ]

    def __iter__(self) -> "JointLoader":
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          InputError: too many records are unreadable, all are left out, or a picture cannot be encoded.
        """
        turn = self._config.mixing.turn(self._weights, self._seed, self._step)
        rows = [lane.row(turn) for lane in self._lanes]
        self._step += 1
        return pack_rows(encode_rows(rows, self._encoder), self._geometry, self._config.packing)

    def state(self) -> dict[str, Any]:
        """The position after the batch that was returned last, as plain data.

        Of several hosts each has its own; :meth:`restore` wants them all.
        """
        return {
            "order": self._fingerprint,
            "step": self._step,
            "host": list(self._host),
            "lanes": [lane.state() for lane in self._lanes],
            "tally": self._tally.state(),
        }

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Goes on from the states of all hosts that saved them, however many they were and had rows.

        Raises:
          InputError: they are of other data, or not of all hosts.
        """
        ordered = sorted(states, key=lambda state: state["host"])
        if [state["host"] for state in ordered] != [[i, len(ordered)] for i in range(len(ordered))]:
            raise InputError(
                f"data positions of hosts {[s['host'] for s in ordered]} (number, count) are not those of all hosts of "
                "a run; give each host's position once"
            )
        same = {json.dumps((state["order"], state["step"])) for state in ordered}
        if len(same) != 1:
            raise InputError(f"data positions of {len(ordered)} hosts are not of one step of one run: {same}")
        if ordered[0]["order"] != self._fingerprint:
            raise InputError(
                "the checkpoint's data position is of other pools, sources, weights, lengths, packing or another seed; "
                f"restore them or start anew (checkpoint {ordered[0]['order']}, now {self._fingerprint})"
            )
        self.close()
        self._tally.restore([s["tally"] for s in self._tallied(ordered)])
        lanes = [lane for state in ordered for lane in state["lanes"]]
        self._begin(ordered[0]["step"], divide_lanes(lanes, self._lanes_total))

    def _tallied(self, states: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Whose counts this host goes on with: its own, or, of another number of hosts, the first one with all."""
        number, count = self._host
        if len(states) == count:
            return states[number : number + 1]
        return states if number == 0 else ()

    def report(self) -> dict[str, float]:
        """Numbers of this host: shares of pools and sources, what was left out and why, how full rows are."""
        out = self._tally.report()
        for pool in self._reader.pools:
            for name, source in zip(pool.names, pool.sources, strict=True):
                if isinstance(source, OfFiles) and source.problems:
                    out[f"data/{pool.name}/{name}/bad_files"] = len(source.problems)
        return out


def _fingerprint(pools: Sequence[OpenPool], config: JointDataConfig, seed: int) -> str:
    """A checksum of all that the order of samples and the rows depend on."""
    told = [
        (pool.name, pool.weight, list(pool.names), [len(source) for source in pool.sources], pool.order.tree)
        for pool in pools
    ]
    return f"{zlib.crc32(repr((told, config.packing, config.mixing, config.dropout, seed)).encode()):08x}"
