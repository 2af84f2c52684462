"""The training loop.  Its order is its contract:

restore, then for every step: next batch, step, log, evaluate, checkpoint.

A checkpoint holds the state and the position in the data after the same batch, so that a run that was killed anywhere
ends bit-identical to one that was not.  Numbers of a step are read while the next one runs.  A step that the guard
refused changed no weight; too many of them in a row stop the run before anything is saved.
"""

import dataclasses
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.hosts import StopVotes, gather, reading_share
from mammoth_jax.training.metrics import LOGGERS, JsonLines, Writer
from mammoth_jax.training.profiling import Profiler
from mammoth_jax.training.report import Console, Stopwatch, speed
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.step import StepFunction, StepReport
from mammoth_jax.training.work import Batches, HostBatch, Load, RunConfig, Work


class TrainingStopped(Exception):
    """The run's guard stopped it: terms or gradients were not finite, or far too large."""


class Interrupted(Exception):
    """Somebody asked the run to stop; it saved and did."""


def train(
    work: Work, config: RunConfig, run: Path, mesh: Mesh, peak_flops: float | None = None
) -> TrainState:
    """Trains to the last step, from the newest checkpoint in ``run`` if there is one.

    Args:
      work: what is trained.
      config: for how long, and what is kept.
      run: the run's folder.
      mesh: devices.
      peak_flops: operations a second that a device can do; None where that is not known.

    Returns:
      The state after the last step.

    Raises:
      TrainingStopped: the guard's limit was reached; the message names the term and the last good checkpoint.
      Interrupted: on SIGINT or SIGTERM, after the step under way was finished and saved.
      InputError: the checkpoint is of another configuration, or the batch does not divide by the mesh.
      SaveFailed: a checkpoint could not be written; the message names the last complete one.
    """
    place, share = _Placement(config, mesh), reading_share(mesh)
    with ExitStack() as stack:  # closes all of them in turn, whatever one of them raises
        checkpoints = stack.enter_context(
            closing(Checkpoints(run, keep_last=config.keep_last, keep_every=config.keep_every))
        )
        batches = stack.enter_context(closing(work.batches()))
        stack.enter_context(jax.set_mesh(mesh))
        state = _resume(work, checkpoints, batches)
        start = int(state.step)
        log = stack.enter_context(closing(_Log(work, config, run, start, checkpoints, share[1])))
        votes = StopVotes(mesh)
        compiled = compiled_step(votes.counted(work.step), state)
        root = jax.random.key(config.seed)
        watch, profiler = Stopwatch(), stack.enter_context(closing(Profiler(run, config.profile_steps)))
        peak = None if peak_flops is None else peak_flops * mesh.size / share[1]
        stop = stack.enter_context(_stop_requests())
        for step in range(start + 1, config.steps + 1):
            with watch("data"):
                batch = next(batches)
            profiler.before(step, state)
            with watch("compute"):
                state, report = compiled(state, work.frozen, votes.cast(place(batch), bool(stop)), root)
                report, stopping = votes.read(report, bool(stop))
                log.step(step, report, batches)
            profiler.after(step, state)
            last = step == config.steps
            if last or step % config.evaluation_interval == 0:
                with watch("evaluation"):
                    log.add(step, work.evaluate(state, step, run / "pictures"))
            if last or stopping or step % config.checkpoint_interval == 0:
                with watch("compute"):
                    log.settle()  # after the step that stops the run nothing is saved
                with watch("checkpoint"):
                    checkpoints.save(step, state, {"hosts": _positions(batches, share[0])})
            log.seconds(watch, None if work.load is None else work.load(batch), peak)
            if stopping and not last:
                raise Interrupted(f"stopped at step {step} of {config.steps}; the same command goes on")
        log.settle()
    return state


def compiled_step(step: StepFunction, state: TrainState) -> Any:
    """The step jitted, for a state (or its shapes) whose arrays it takes over.

    The state comes out laid out as it went in, else the second call would compile again.
    """
    layout = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(layout, None))


def batch_sharding(config: RunConfig, mesh: Mesh) -> NamedSharding:
    """Where batches ``[accumulation, rows, ...]`` lie: rows over the mesh's data axes.

    Raises:
      InputError: the rows do not divide by them.
    """
    axes = current_rules().batch
    shards = int(np.prod([mesh.shape[axis] for axis in axes]))
    rows = config.batch_size // config.accumulation
    if rows % shards:
        raise InputError(
            f"run.batch_size {config.batch_size} in {config.accumulation} parts gives {rows} rows, which do not "
            f"divide by the mesh's {'x'.join(axes)} = {shards}; use a multiple of {shards * config.accumulation}"
        )
    return NamedSharding(mesh, PartitionSpec(None, axes))


def _resume(work: Work, checkpoints: Checkpoints, batches: Batches) -> TrainState:
    latest = checkpoints.latest()
    if latest is None:
        return work.initial()
    state, position = checkpoints.restore(latest, _like(work))
    batches.restore(position["hosts"])
    return state


def _positions(batches: Batches, part: int) -> list[Any]:
    """The positions in the data of all hosts; hosts that read the same ``part`` of the rows have one."""
    return list(dict(gather([part, batches.state()])).values())


def _like(work: Work) -> TrainState:
    if work.like is not None:
        return work.like()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), work.initial())


class _Placement:
    """Host batches as arrays ``[accumulation, rows, ...]`` on the mesh, rows over its data axes."""

    def __init__(self, config: RunConfig, mesh: Mesh):
        self._parts, self._sharding = config.accumulation, batch_sharding(config, mesh)
        self._rows = config.batch_size // reading_share(mesh)[1]

    def __call__(self, batch: HostBatch) -> dict[str, jax.Array]:
        def place(x: np.ndarray) -> jax.Array:
            if x.shape[0] != self._rows:
                raise InputError(
                    f"a host read {x.shape[0]} rows where its devices hold {self._rows}; for this task choose a tensor "
                    "size that divides the devices of a host"
                )
            parts = x.reshape(self._parts, x.shape[0] // self._parts, *x.shape[1:])
            return jax.make_array_from_process_local_data(self._sharding, parts)

        return {name: place(x) for name, x in batch.items()}


@contextmanager
def _stop_requests() -> Iterator["_Flag"]:
    """True from the first SIGINT or SIGTERM on; a second SIGINT interrupts at once."""
    flag = _Flag()

    def handler(number: int, frame: Any) -> None:
        if flag and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.raised = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:  # not in the main thread: nobody can send this thread a signal
        before = {}
    try:
        yield flag
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Flag:
    raised = False

    def __bool__(self) -> bool:
        return self.raised


@dataclasses.dataclass
class _Pending:
    step: int
    report: StepReport
    data: Mapping[str, Any]
    more: dict[str, Any]


class _Log:
    """Writes each step's numbers one step late, when reading them no longer holds up the device."""

    def __init__(
        self, work: Work, config: RunConfig, run: Path, start: int, checkpoints: Checkpoints, parts: int
    ):
        self._work, self._config, self._checkpoints, self._parts = work, config, checkpoints, parts
        self._console = Console(config.steps)
        self._pending: _Pending | None = None
        self._load: list[Load] = []
        self._processor = time.process_time()
        self._writers: list[Writer] = []
        if jax.process_index() == 0:
            self._writers = [JsonLines(run, start), *(LOGGERS[name](run, start) for name in config.loggers)]

    def step(self, step: int, report: StepReport, batches: Batches) -> None:
        self.settle()
        self._pending = _Pending(step, report, batches.report(), {})

    def add(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Numbers that belong to the step just made."""
        assert self._pending is not None and self._pending.step == step
        self._pending.more |= {f"evaluation/{name}": value for name, value in numbers.items()}

    def seconds(self, watch: Stopwatch, load: Load | None, peak: float | None) -> None:
        """Where the time went since the last line; that of a step whose line is written already goes to the next."""
        self._load += [] if load is None else [load]
        if self._pending is None or not self._logged(self._pending):
            return
        if self._load:
            self._pending.more |= speed(self._load, watch["data"] + watch["compute"], self._parts, peak)
            self._load = []
        self._pending.more |= {f"seconds/{name}": value for name, value in watch.lap().items()}
        before, self._processor = self._processor, time.process_time()
        self._pending.more["seconds/processor"] = self._processor - before

    def _logged(self, pending: _Pending) -> bool:
        """Whether the step gets a line."""
        evaluated = any(name.startswith("evaluation/") for name in pending.more)
        return evaluated or pending.step % self._config.log_interval == 0

    def settle(self) -> None:
        """Reads and writes the numbers of the last step.

        Raises:
          TrainingStopped: the guard's limit is reached.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        report = jax.device_get(pending.report)
        terms = {name: float(term.total / term.weight) for name, term in report.terms.items() if term.weight}
        norms = {f"gradient_norm/{name}": float(norm) for name, norm in report.gradient_norms.items()}
        applied = bool(report.applied)
        skips = self._guard(pending.step, applied, report.guard, terms | norms)
        terms, norms = ({n: x for n, x in numbers.items() if np.isfinite(x)} for numbers in (terms, norms))
        self._console(pending.step, terms, pending.more)
        if not self._writers or not self._logged(pending):
            return
        # schedules go by the optimiser's count, which a skipped step leaves as it was
        taken = pending.step - skips.get("skipped_steps", 0) - applied
        rates = {f"learning_rate/{n}": float(rate(taken)) for n, rate in self._work.rates.items()}
        for writer in self._writers:
            writer.write(pending.step, {**terms, **norms, **skips, **rates, **pending.data, **pending.more})

    def _guard(
        self, step: int, applied: bool, guard: Mapping[str, Any], values: Mapping[str, float]
    ) -> dict[str, int]:
        """The number of skipped steps, for the log."""
        skips = {"skipped_steps": int(guard["skipped"])} if guard else {}
        in_row = int(guard["in_row"]) if guard else 1
        if applied or in_row < self._config.guard.stop_after:
            return skips
        broken = [f"{name} = {value}" for name, value in values.items() if not np.isfinite(value)]
        reason = (
            f"{', '.join(broken)} is not finite"
            if broken
            else ", ".join(f"{n} = {x:.4g}" for n, x in values.items() if n.startswith("gradient_norm/"))
            + f" is over {self._config.guard.spike} times the average"
        )
        if in_row > 1:
            reason += f", the last of {in_row} skipped steps in a row (run.guard.stop_after)"
        latest = self._checkpoints.latest()
        kept = (
            f"checkpoint {latest} is the last good one"
            if latest is not None
            else "there is no checkpoint yet"
        )
        raise TrainingStopped(f"step {step}: {reason}; {kept}. Lower the learning rate or the term's weight")

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
