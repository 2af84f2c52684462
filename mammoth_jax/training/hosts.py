"""Small agreements between the processes of a run."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import PRNGKeyArray
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.step import Frozen, StepFunction, StepReport


def gather(value: Any) -> list[Any]:
    """The JSON values of all processes, in order, known to each of them."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(data.size)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: data.size] = data
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def reading_share(mesh: Mesh, host: int | None = None) -> tuple[int, int]:
    """Which of how many equal parts of every batch's rows a host (by default this one) reads.

    Hosts whose devices hold the same rows (those of one ``tensor`` group, where it is larger than a host) read the same
    part.

    Raises:
      InputError: the mesh has no device of this host, or the hosts' parts overlap.
    """
    axes = current_rules().batch
    size = int(np.prod([mesh.shape[axis] for axis in axes]))
    held: dict[int, set[int]] = {}
    for device, (part,) in NamedSharding(mesh, PartitionSpec(axes)).devices_indices_map((size,)).items():
        held.setdefault(device.process_index, set()).add(part.start or 0)
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    number = jax.process_index() if host is None else host
    sizes = ",".join(f"{axis}={n}" for axis, n in mesh.shape.items())
    if number not in held:
        raise InputError(
            f"mesh {sizes} has no device of host {number}; its sizes must multiply to all devices"
        )
    if len({len(part) for part in parts}) > 1 or sum(map(len, parts)) != size:
        raise InputError(
            f"mesh {sizes}: hosts hold parts of each other's rows; choose a tensor size that divides the devices of a "
            "host, or is a multiple of them"
        )
    return parts.index(tuple(sorted(held[number]))), len(parts)


class StopVotes:
    """Whether some host was asked to stop, as all of them know it.

    A signal reaches hosts at different steps, but they must stop after the same one, or the others wait for ever.  So
    each step carries every host's vote, and its result is read one step later, when that holds nobody up.
    """

    def __init__(self, mesh: Mesh):
        self._place = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._votes = len(mesh.local_devices)
        self._alone = jax.process_count() == 1
        self._before: jax.Array | None = None

    def counted(self, step: StepFunction) -> StepFunction:
        """The step to compile: with several hosts one that counts votes beside its batch."""
        if self._alone:
            return step

        def counting(state: TrainState, frozen: Frozen, batch: Any, root: PRNGKeyArray) -> Any:
            rows, votes = batch
            state, report = step(state, frozen, rows, root)
            return state, (report, jnp.any(votes))

        return counting

    def cast(self, batch: Any, stop: bool) -> Any:
        """What the compiled step takes for its batch."""
        if self._alone:
            return batch
        return batch, jax.make_array_from_process_local_data(self._place, np.full(self._votes, stop))

    def read(self, report: Any, stop: bool) -> tuple[StepReport, bool]:
        """The step's report, and whether to stop after it."""
        if self._alone:
            return report, stop
        before, (report, self._before) = self._before, report
        return report, before is not None and bool(before)
