"""A training step on paper: memory and time on each chip of a slice by sizes alone, without a compiler.

Memory is what must be there at once: the state as the sharding rules place it, the weights in the compute dtype, their
gradients, what layers keep of the forward pass, and the largest layer while it is differentiated, beside its gathered
weights; on one chip of a host also what encodes pictures that were not precomputed.  Times are operations, bytes of HBM
and bytes over the links, divided by the chip's peak figures.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from mammoth_jax.benchmarks.chips import chip_of, num_chips, num_devices
from mammoth_jax.benchmarks.placement import Placed, place, replicated
from mammoth_jax.benchmarks.preflight import mesh_name, training_meshes
from mammoth_jax.benchmarks.step_activations import Stack, carried, stacks
from mammoth_jax.benchmarks.training_step import row_arrays, step_cost
from mammoth_jax.core.config import encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import AXES
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.ops.cross_entropy import SCORES_IN_BLOCK
from mammoth_jax.training.joint import changed_names, joint_player
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.muon import stacked_matrices
from mammoth_jax.training.picture_encoder import encoding_bytes
from mammoth_jax.training.player import Player

FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """The step of a training configuration, which ``name`` calls by its file, on a slice."""

    name: str
    config: JointTraining
    topology: str

    def meshes(self) -> list[dict[str, int]]:
        """All ways to lay the devices out that waste none.

        Raises:
          InputError: there is none.
        """
        return training_meshes(self.config, self.topology, num_devices(self.topology))

    def __call__(self, mesh: Mapping[str, int]) -> dict[str, Any]:
        """Everything as plain data; bytes are those of one chip.

        Raises:
          InputError: the mesh has not as many devices as the slice, or the rows do not divide by it.
        """
        sizes = {axis: mesh.get(axis, 1) for axis in AXES}
        devices, chip = num_devices(self.topology), chip_of(self.topology)
        chips = num_chips(self.topology)
        if math.prod(sizes.values()) != devices:
            raise InputError(
                f"mesh {mesh_name(sizes)} needs {math.prod(sizes.values())} devices, {self.topology} has {devices}"
            )
        step = _Step(self._config, self._player, sizes)
        memory = {kind: size * devices // chips for kind, size in step.memory().items()}
        memory["picture encoders"] = encoding_bytes(self._config)  # on one chip of a host, which has to fit
        links = {kind: size * devices // chips for kind, size in step.links().items()}
        cost, total = self._cost, sum(memory.values())
        seconds = {
            "compute": cost.flops / chips / chip.flops,
            "memory": step.traffic() * devices / chips / chip.hbm_bandwidth,
            "links": sum(links.values()) / chip.ici_bandwidth,
        }
        bound = max(seconds, key=lambda kind: seconds[kind])
        return {
            "config": self.name,
            "topology": self.topology,
            "settings": encode(self._config),
            "mesh": sizes,
            "chips": chips,
            "fits": total <= chip.hbm,
            "hbm": total,
            "hbm_of_chip": chip.hbm,
            "memory": memory,
            "host_memory": step.offloaded() * devices // chips,
            "flops": cost.flops,
            "links": links,
            "seconds": {**seconds, "roofline": seconds[bound], "bound": bound},
            "roofline_seconds": seconds[bound],
            "replicated": replicated(step.placed, step.state_bytes),
        }

    @functools.cached_property
    def _config(self) -> JointTraining:
        """As ``compile`` has it: bfloat16 unless the configuration says otherwise."""
        return dataclasses.replace(self.config, dtype=self.config.dtype or "bfloat16")

    @functools.cached_property
    def _player(self) -> Player:
        return joint_player(self._config)

    @functools.cached_property
    def _cost(self) -> Any:
        return step_cost(self._config, self._player)


class _Step:
    """The step on one device of a mesh; everything is in bytes."""

    def __init__(self, config: JointTraining, player: Player, mesh: dict[str, int]):
        self.config, self.mesh = config, mesh
        self.item = parse_dtype(config.dtype).itemsize
        groups = math.prod(mesh[axis] for axis in current_rules().batch)
        rows = config.run.batch_size // config.run.accumulation
        if rows % groups:
            raise InputError(
                f"run.batch_size {config.run.batch_size} in {config.run.accumulation} parts gives {rows} rows, which "
                f"do not divide by the {groups} row groups of mesh {mesh_name(mesh)}; use a multiple of "
                f"{groups * config.run.accumulation}"
            )
        self.rows = rows // groups
        self.stacks = tuple(stacks(config))
        self.placed = [
            place(name, p.shape, p.axes, name in player.names, mesh) for name, p in player.declared().items()
        ]
        self.adapted = changed_names(player) - player.names  # merged with their adapters while the step runs
        self.one_moment = set() if config.optimizer.muon is None else set(stacked_matrices(player.declared()))

    def moments(self, p: Placed) -> int:
        """How many the optimiser has of a trained parameter."""
        return 1 if p.name in self.one_moment else 2

    def state_bytes(self, p: Placed) -> int:
        """What the state holds for each number of a parameter: master, moments and average, or the frozen one."""
        if not p.trained:
            return self.item
        return (1 + self.moments(p) + (self.config.ema_decay is not None)) * FLOAT32

    def memory(self) -> dict[str, int]:
        """What lies in HBM when the backward pass is at its largest."""
        own = sum(p.share for p in self.placed if p.trained)
        accumulated = FLOAT32 * own if self.config.run.accumulation > 1 else 0
        batch = sum(x.nbytes for x in row_arrays(self.config).values())
        return {
            "masters": FLOAT32 * own,
            "moments": FLOAT32 * sum(self.moments(p) * p.share for p in self.placed if p.trained),
            "averages": 0 if self.config.ema_decay is None else FLOAT32 * own,
            "frozen": self.item * sum(p.share for p in self.placed if not p.trained),
            "batch": batch * self.rows * self.config.run.accumulation,
            "compute weights": self.item * sum(p.used_share for p in self.placed if self._copied(p)),
            "gradients": FLOAT32 * own
            + accumulated
            + self.item * sum(p.used_share for p in self.placed if self._gradient_copied(p)),
            "activations": self.activations(),
            "working": max(self.working().values()),
        }

    def _copied(self, p: Placed) -> bool:
        """Whether a step uses a copy of a parameter: in another number format, in larger parts, or merged."""
        return (p.trained and self.item != FLOAT32) or p.used != p.shards or p.name in self.adapted

    def _gradient_copied(self, p: Placed) -> bool:
        """Whether a gradient is there before it is that of the state: of larger parts, or of a merged kernel."""
        return (p.trained and p.used != p.shards) or p.name in self.adapted

    def activations(self) -> int:
        """What is kept of the forward pass, and what lives through it."""
        tensor = self.mesh["tensor"]
        kept = sum(s.kept(tensor, self._cut(s)) for s in self.stacks if self._differentiated(s))
        return self.rows * (self.item * kept + sum(carried(self.config).values()))

    def offloaded(self) -> int:
        """What is kept in the host's memory."""
        tensor = self.mesh["tensor"]
        found = (s.offloaded(tensor, self._cut(s)) for s in self.stacks if self._differentiated(s))
        return self.rows * self.item * sum(found)

    def working(self) -> dict[str, int]:
        """What the largest pieces of the backward pass need for themselves, one at a time.

        Weights of a layer are there twice, as values and as a gradient that is not divided yet; those of experts, which
        the grouped products read from one array, twice more.
        """
        tensor, tokens = self.mesh["tensor"], self.config.data.packing.tokens
        width = self.config.model.backbone.decoder.hidden_size
        found = {
            stack.prefix: self.item
            * (self.rows * stack.working(tensor, self._cut(stack)) + 2 * self._layer(stack.prefix))
            for stack in self.stacks
        }
        scores = 3 * FLOAT32 * min(SCORES_IN_BLOCK, self.rows * tokens * self._largest("head.kernel", 1))
        found["heads"] = scores + 2 * FLOAT32 * self.rows * tokens * width
        rows = self._largest("embed.table", 0)
        table = rows * width // (tensor if rows % tensor == 0 else 1)
        found["tables"] = (self.item + FLOAT32) * table
        return found

    def traffic(self) -> float:
        """Bytes that cross HBM: the state once each way, gathered weights and activations in each of three passes."""
        state = sum((2 * self.state_bytes(p) + 2 * FLOAT32) * p.share for p in self.placed if p.trained)
        parts = self.config.run.accumulation
        weights = 4 * self.item * parts * sum(p.used_share * p.over_batch for p in self.placed)
        tensor = self.mesh["tensor"]
        inner = sum(s.layers * s.working(tensor, self._cut(s)) for s in self.stacks)
        return state + weights + parts * self.rows * self.item * 3 * inner

    def links(self) -> dict[str, float]:
        """Bytes that come into a device over the links, at the least."""
        parts, sizes = self.config.run.accumulation, self.mesh
        groups = math.prod(sizes[axis] for axis in current_rules().batch)
        gathered = reduced = 0.0
        for p in self.placed:
            again = 2 if self._computed_again(p.name) else 1
            whole = p.used_share * p.over_batch * self.item
            gathered += parts * again * whole * (p.over_batch - 1) / p.over_batch
            gathered += self.item * (p.used_share - p.share)
            if p.trained:
                scattered = whole * (p.over_batch - 1) / p.over_batch
                left = groups // p.over_batch  # groups that hold the same part: their sums are made whole
                reduced += parts * (scattered + 2 * p.used_share * self.item * (left - 1) / left)
        tensor = sizes["tensor"]
        passes = sum(
            # a half of a layer is summed forwards, again and backwards
            (3 if s.policy is not None else 2) * s.summed_halves(tensor) * s.layers * s.tokens * s.width
            for s in self.stacks
        )
        across = parts * self.rows * passes * self.item * 2 * (tensor - 1) / tensor
        return {"gather weights": gathered, "reduce gradients": reduced, "sum activations": across}

    def _differentiated(self, stack: Stack) -> bool:
        """Whether gradients pass through a stack: not through a tower below which nothing is trained."""
        return stack.prefix != "vision.layers." or any(
            p.trained and p.name.startswith("vision.") for p in self.placed
        )

    def _computed_again(self, name: str) -> bool:
        return any(name.startswith(s.prefix) and s.policy is not None for s in self.stacks)

    def _cut(self, stack: Stack) -> int:
        """Parts that each row's tokens are cut into between layers."""
        spec = current_rules().spec(("length",), (stack.tokens,), self.mesh, move=False)[0]
        names = (spec,) if isinstance(spec, str) else spec or ()
        return math.prod(self.mesh[name] for name in names)

    def _layer(self, prefix: str) -> int:
        """Numbers of the largest layer of a stack, as it is used: gathered over the axes that divide the batch."""
        layers: dict[str, int] = {}
        routed = {p.name.split(".ffn.1.")[0] for p in self.placed if ".ffn.1." in p.name}
        for p in self.placed:
            if p.name.startswith(prefix):
                run = p.name.removeprefix(prefix).split(".")[0] if prefix == "decoder.segments." else ""
                copies = 2 if ".ffn." in p.name and p.name.split(".ffn.")[0] in routed else 1
                layers[run] = layers.get(run, 0) + copies * p.used_share * p.over_batch // p.shape[0]
        return max(layers.values(), default=0)

    def _largest(self, ending: str, dimension: int) -> int:
        return max((p.shape[dimension] for p in self.placed if p.name.endswith(ending)), default=0)
