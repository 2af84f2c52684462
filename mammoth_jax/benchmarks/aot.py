"""Ahead-of-time compilation of a task for a TPU slice, without a TPU: what each program needs of every chip."""

import dataclasses
import importlib.metadata
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.benchmarks import hlo
from mammoth_jax.benchmarks.calls import Call, Task
from mammoth_jax.benchmarks.chips import chip_of
from mammoth_jax.benchmarks.hlo_flops import product_flops
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.costs import Cost
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.step import Frozen

LIBTPU = {"0.10.2": "0.0.42", "0.11.2": "0.0.48"}
"""The libtpu that each jax was built against; others compile, too, but fail on some programs."""


def require_libtpu() -> str:
    """Checks that a libtpu is there that fits jax; returns its version.

    Raises:
      InputError: there is none, or that of another jax.
    """
    advice = "install the extra 'tpu', e.g. pip install 'mammoth-jax[tpu]'"
    try:
        found = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"compiling for TPUs needs libtpu, which is not installed; {advice}") from None
    wanted = LIBTPU.get(jax.__version__)
    if wanted is not None and found != wanted and not found.startswith(wanted + "."):
        raise InputError(f"libtpu {found} does not fit jax {jax.__version__}, which needs {wanted}; {advice}")
    return found


def slice_devices(topology: str) -> Sequence[Any]:
    """The devices of a slice that need not exist; some chips are two devices.

    Raises:
      InputError: no such slice.
    """
    from jax.experimental import topologies

    chip = chip_of(topology)
    sides = [int(side) for side in topology.partition(":")[2].split("x")]
    options: dict[str, Any] = {}
    if chip.configuration is not None:
        options["chip_config_name"] = chip.configuration
    if math.prod(sides) < 4:  # smaller than a host
        options["chips_per_host_bounds"] = [*sides, *[1] * (3 - len(sides))]
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"topology {topology!r}: {reason}; sides of whole hosts are multiples of 2"
        ) from None


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of HBM on one chip while a program runs.

    Attributes:
        weights: of the whole task, those that this program does not read included.
        cache: keys and values.
        inputs, outputs: its other arguments and results, and what else the task keeps meanwhile.
        temporaries: the rest of what the compiler asks for.
        read_weights: weights among its arguments.
        logical_weights: the same without the layout's padding: parameters times their size, over the mesh.
    """

    weights: int
    cache: int
    inputs: int
    outputs: int
    temporaries: int
    read_weights: int
    logical_weights: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.inputs + self.outputs + self.temporaries


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program as compiled.

    Attributes:
        weight_share: how much of the weights that it reads each chip holds (1 where all are replicated).
        product_flops: what the products outside of kernels execute on a chip.
        seconds: of compiling.
        refused: the compiler's message where it does not fit; ``memory`` then holds what that message says.
    """

    name: str
    memory: Memory
    cost: Cost
    seconds: float
    weight_share: float = 0.0
    refused: str | None = None
    collectives: dict[str, hlo.Traffic] = dataclasses.field(default_factory=dict)
    custom_calls: int = 0
    product_flops: int = 0
    copies: tuple[hlo.Copy, ...] = ()


def compile_task(task: Task, weights: Any, mesh: Mesh) -> Iterator[Compiled]:
    """Compiles the programs of a task one after the other; ``weights`` (any tree) stay in memory all along."""
    chips = len({tuple(device.coords) for device in mesh.devices.flat})
    compiler = _Compiler(weights, mesh, mesh.size // chips)
    sent = None
    while True:
        try:
            call = task.send(sent)
        except StopIteration:
            return
        compiled, sent = compiler(call)
        yield compiled


class _Compiler:
    def __init__(self, weights: Any, mesh: Mesh, devices_per_chip: int):
        self.mesh = mesh
        self.per_chip = devices_per_chip
        self.weights = self.argument_bytes(jax.tree.leaves(weights))

    def argument_bytes(self, leaves: Sequence[Any]) -> int:
        """What arrays take on a device as arguments, padding by their layout included: the compiler's own figure."""
        if not leaves:
            return 0
        with jax.set_mesh(self.mesh):
            idle = jax.jit(lambda *xs: jnp.zeros(()), keep_unused=True).lower(*leaves)
            try:
                stats = idle.compile().memory_analysis()
            except jax.errors.JaxRuntimeError as error:  # they alone do not fit
                return max(_refused_bytes_or_raise(error), sum(map(device_bytes, leaves)))
        assert stats is not None, "libtpu reports no memory figures"
        return stats.argument_size_in_bytes

    def __call__(self, call: Call) -> tuple[Compiled, Any]:
        begin = time.perf_counter()
        with jax.set_mesh(self.mesh):
            lowered = call.program.lower(*call.args, **call.arrays, **call.static)
            try:
                executable = lowered.compile()
            except jax.errors.JaxRuntimeError as error:
                needed, seconds = _refused_bytes_or_raise(error), time.perf_counter() - begin
                return self._refused(call, needed, str(error), seconds), shaped(lowered.out_info)
        seconds = time.perf_counter() - begin
        text = hlo.parse(executable.as_text())
        given = jax.tree.leaves(executable.input_shardings, is_leaf=lambda x: x is None)
        read = [
            x for (x, is_weight), s in zip(_leaves(call), given, strict=True) if is_weight and s is not None
        ]
        compiled = Compiled(
            call.name,
            self._memory(call, executable, read),
            call.cost,
            seconds,
            self._share(read),
            None,
            hlo.collectives(text, call.steps),
            hlo.custom_calls(text),
            self.per_chip * product_flops(text, call.steps),
            tuple(hlo.large_copies(text, steps=call.steps)),
        )
        return compiled, shaped(lowered.out_info, executable.output_shardings)

    def _share(self, read: Sequence[Any]) -> float:
        whole = sum(x.size * x.dtype.itemsize for x in read)
        return self.per_chip * sum(map(device_bytes, read)) / whole if whole else 0.0

    def _memory(self, call: Call, executable: Any, read: Sequence[Any]) -> Memory:
        stats = executable.memory_analysis()
        read_bytes = self.argument_bytes(read)
        arguments = stats.argument_size_in_bytes
        results = stats.output_size_in_bytes - stats.alias_size_in_bytes
        needed = max(stats.peak_memory_in_bytes, arguments + results + stats.temp_size_in_bytes)
        inside = min(call.cache, stats.temp_size_in_bytes)
        cache = inside + sum(
            device_bytes(x) for c in _caches(call) for x in jax.tree.leaves((c.keys, c.values))
        )
        kept = sum(device_bytes(x) for x in jax.tree.leaves(call.kept))
        inputs = max(arguments - read_bytes - (cache - inside), 0)
        return Memory(
            *(
                self.per_chip * x
                for x in (
                    self.weights,
                    cache,
                    inputs + kept,
                    results,
                    max(needed - read_bytes - cache - inputs - results, 0),
                    read_bytes,
                    sum(map(device_bytes, read)),
                )
            )
        )

    def _refused(self, call: Call, needed: int, message: str, seconds: float) -> Compiled:
        """What the compiler asked for, arguments included, and the weights that the program does not read."""
        weights = [x for x, is_weight in _leaves(call) if is_weight and x is not None]
        read, kept = sum(map(device_bytes, weights)), sum(map(device_bytes, jax.tree.leaves(call.kept)))
        sizes = (self.weights, 0, kept, 0, max(needed - read, 0), read, read)
        memory = Memory(*(self.per_chip * x for x in sizes))
        return Compiled(call.name, memory, call.cost, seconds, self._share(weights), message.splitlines()[0])


def _refused_bytes_or_raise(error: Exception) -> int:
    """How much the compiler wanted, if that is why it failed."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    return refused_bytes(str(error))


def refused_bytes(message: str) -> int:
    """How much the compiler wanted: the first figure of its message, such as ``35.40G``; 0 without one."""
    found = re.search(r"(\d+\.\d+)([KMGT])", message)
    return int(float(found.group(1)) * 1024 ** ("KMGT".index(found.group(2)) + 1)) if found else 0


def shaped(info: Any, shardings: Any = None) -> Any:
    """A program's results as shapes; without shardings the compiler may place them as it likes."""
    if shardings is None:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), info)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), info, shardings)


def device_bytes(x: Any) -> int:
    """Bytes of an array on each device, without padding; all of them where its sharding is not known."""
    sharding = getattr(x, "sharding", None)
    shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
    return math.prod(shape) * x.dtype.itemsize


def _leaves(call: Call) -> list[tuple[Any, bool]]:
    """The arrays that a call is given (and ``None`` for what is left out), and whether each is a weight.

    Moments of a training state count as weights: they stay in memory as long.
    """
    values = [*call.args, *(call.arrays[name] for name in sorted(call.arrays))]
    return [
        (leaf, isinstance(value, (nnx.Module, TrainState, Frozen)))
        for value in values
        for leaf in jax.tree.leaves(value, is_leaf=lambda x: x is None)
    ]


def _caches(call: Call) -> list[KVCache]:
    is_cache = lambda x: isinstance(x, KVCache)  # noqa: E731
    found = jax.tree.leaves((call.args, dict(call.arrays)), is_leaf=is_cache)
    return [x for x in found if is_cache(x)]
