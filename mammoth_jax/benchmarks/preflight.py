"""Whether a task fits a slice and how fast it can be there: figures of its compiled programs, one mesh or many."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mammoth_jax.benchmarks.aot import Compiled, compile_task, slice_devices
from mammoth_jax.benchmarks.calls import Workload
from mammoth_jax.benchmarks.chips import Chip, chip_of
from mammoth_jax.benchmarks.tasks import TASKS, abstract_model, resident_weights
from mammoth_jax.benchmarks.training_step import training_step
from mammoth_jax.core.config import encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.picture_encoder import encoding_bytes

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Times:
    """The least seconds that a program's arithmetic, memory and links take on one chip."""

    compute: float
    memory: float
    links: float

    @property
    def roofline(self) -> float:
        """The least time of the program, were all three to overlap perfectly."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """Which of the three it is."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def times(program: Compiled, chip: Chip, chips: int) -> Times:
    """The times of a program by the chip's peak figures.

    Arithmetic is divided evenly, or is what the program's products execute where that is more.  A chip reads the
    weights that it holds, and writes and reads those (and everything else) that it gathers from others; the other bytes
    are divided evenly.
    """
    cost = program.cost
    gathered = program.collectives["all-gather"].bytes if "all-gather" in program.collectives else 0
    own = cost.weights * program.weight_share + (cost.bytes - cost.weights) / chips
    received = sum(traffic.received for traffic in program.collectives.values())
    return Times(
        max(cost.flops / chips, program.product_flops) / chip.flops,
        (own + 2 * gathered) / chip.hbm_bandwidth,
        received / chip.ici_bandwidth,
    )


class Preflight(Protocol):
    """What to compile on a slice."""

    @property
    def topology(self) -> str:
        """The slice."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is compiled, as plain data; equal for equal programs."""
        ...

    def compiled(self, mesh: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        """Compiles the programs one after the other; a record of plain data for each.

        Raises:
          InputError: no such slice, or a mesh that does not fit it.
        """
        ...

    def meshes(self) -> list[dict[str, int]]:
        """All ways to lay the devices out that waste none.

        Raises:
          InputError: there is none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class TaskPreflight:
    """A pipeline's task of an architecture."""

    preset: str
    task: str
    topology: str
    workload: Workload

    def describe(self) -> dict[str, Any]:
        """See :class:`Preflight`."""
        return {
            "preset": self.preset,
            "task": self.task,
            "topology": self.topology,
            "workload": dataclasses.asdict(self.workload),
        }

    def compiled(self, mesh: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        """See :class:`Preflight`."""
        config = MammothConfig.from_preset(self.preset)
        devices = slice_devices(self.topology)
        made = make_mesh(dict(mesh), devices)
        loaded = abstract_model(config, self.task, made, self.workload.dtype)
        weights = resident_weights(loaded, self.task, self.workload)
        for program in compile_task(TASKS[self.task](loaded, self.workload), weights, made):
            yield record(program, chip_of(self.topology), count_chips(devices))

    def meshes(self) -> list[dict[str, int]]:
        """See :class:`Preflight`.

        Left out are those whose data axis does not divide the batch or whose tensor axis does not divide the
        decoder's key/value heads: there devices would repeat each other's work.
        """
        count, decoder = (
            len(slice_devices(self.topology)),
            MammothConfig.from_preset(self.preset).backbone.decoder,
        )
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        return [
            {"data": data, "fsdp": count // data // tensor, "tensor": tensor}
            for data in divisors
            if self.workload.batch % data == 0
            for tensor in divisors
            if count // data % tensor == 0 and decoder.num_kv_heads % tensor == 0
        ]


@dataclasses.dataclass(frozen=True)
class TrainingPreflight:
    """The step of a training configuration, which ``name`` calls by its file."""

    name: str
    config: JointTraining
    topology: str

    def describe(self) -> dict[str, Any]:
        """See :class:`Preflight`."""
        return {"config": self.name, "topology": self.topology, "settings": encode(self.config)}

    def compiled(self, mesh: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        """See :class:`Preflight`.  Weights run in bfloat16 unless the configuration says otherwise.

        What encodes pictures that were not precomputed is counted with the step, on the chip of a host that has it.
        """
        devices = slice_devices(self.topology)
        made = make_mesh(dict(mesh), devices)
        config = dataclasses.replace(self.config, dtype=self.config.dtype or "bfloat16")
        task, kept = training_step(config, made)
        for program in compile_task(task, kept, made):
            chips = count_chips(devices)
            yield record(program, chip_of(self.topology), chips, encoders=encoding_bytes(config))

    def meshes(self) -> list[dict[str, int]]:
        """See :class:`Preflight`."""
        return training_meshes(self.config, self.topology, len(slice_devices(self.topology)))


def training_meshes(config: JointTraining, topology: str, devices: int) -> list[dict[str, int]]:
    """All ways to lay the devices of a slice out for a training step.

    Left out are those whose rows do not divide, and more tensor parts than key/value heads: there devices would repeat
    each other's work.

    Raises:
      InputError: none is left.
    """
    heads, rows = config.model.backbone.decoder.num_kv_heads, config.run.batch_size // config.run.accumulation
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    found = [
        {"data": data, "fsdp": devices // data // tensor, "tensor": tensor}
        for data in divisors
        for tensor in divisors
        if devices // data % tensor == 0 and heads % tensor == 0 and rows % (devices // tensor) == 0
    ]
    if not found:
        raise InputError(
            f"no mesh of {topology} divides run.batch_size {config.run.batch_size}; change either"
        )
    return found


def count_chips(devices: Sequence[Any]) -> int:
    """Chips of a slice; some are two devices."""
    return len({tuple(device.coords) for device in devices})


def record(program: Compiled, chip: Chip, chips: int, *, encoders: int = 0) -> dict[str, Any]:
    """Everything about a program as plain data; bytes are those of one chip unless they are named otherwise.

    ``encoders`` is what encodes a training step's pictures, on the chip of a host that has it.
    """
    needed, total = times(program, chip, chips), program.memory.total + encoders
    return {
        "program": program.name,
        "hbm": dataclasses.asdict(program.memory) | {"picture_encoders": encoders, "total": total},
        "fits": program.refused is None and total <= chip.hbm,
        "refused": program.refused,
        "flops": program.cost.flops,
        "bytes": program.cost.bytes,
        "chips": chips,
        "collectives": {kind: dataclasses.asdict(t) for kind, t in program.collectives.items()},
        "custom_calls": program.custom_calls,
        "product_flops": program.product_flops,
        "copies_in_loops": [dataclasses.asdict(copy) for copy in program.copies],
        "seconds": dataclasses.asdict(needed) | {"roofline": needed.roofline, "bound": needed.bound},
        "compile_seconds": round(program.seconds, 1),
    }


def summary(
    preflight: Preflight, mesh: Mapping[str, int], programs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A mesh's programs together: the largest need, the whole time."""
    return {
        **preflight.describe(),
        "mesh": dict(mesh),
        "fits": all(program["fits"] for program in programs),
        "hbm": max(program["hbm"]["total"] for program in programs),
        "hbm_of_chip": chip_of(preflight.topology).hbm,
        "flops": sum(program["flops"] for program in programs),
        "bytes": sum(program["bytes"] for program in programs),
        "roofline_seconds": sum(program["seconds"]["roofline"] for program in programs),
        "programs": list(programs),
    }


def verdict(result: Mapping[str, Any]) -> str:
    """The last line."""
    figures = f"{result['hbm'] / GIB:.2f} of {result['hbm_of_chip'] / GIB:.2f} GiB per chip"
    return f"fits: {figures}" if result["fits"] else f"does not fit: {figures}"


def known_results(file: Path | None, key: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Earlier results of the same sweep, by mesh; a last line that was cut off is passed over."""
    found = {}
    if file is not None and file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                result = json.loads(line)
            except json.JSONDecodeError:
                continue
            if all(result.get(name) == value for name, value in key.items()):
                found[mesh_name(result["mesh"])] = result
    return found


def mesh_name(mesh: Mapping[str, int]) -> str:
    """``data=1,fsdp=2,tensor=2``."""
    return ",".join(f"{axis}={size}" for axis, size in mesh.items())


def sweep(
    compile_mesh: Callable[[Mapping[str, int]], dict[str, Any]],
    meshes: Sequence[Mapping[str, int]],
    key: Mapping[str, Any],
    file: Path | None = None,
) -> Iterator[tuple[dict[str, Any], bool]]:
    """The result of every mesh, and whether it was known; each new one is appended to ``file`` at once."""
    known = known_results(file, key)
    for mesh in meshes:
        result = known.get(mesh_name(mesh))
        if result is not None:
            yield result, True
            continue
        result = {**compile_mesh(mesh), **key}
        if file is not None:
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")
        yield result, False
