"""What a training task hands to the loop: state, step, data and evaluation.  The loop knows nothing else about it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import optax

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.sharding import parse_rules
from mammoth_jax.training.guard import Guard
from mammoth_jax.training.metrics import Numbers
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.step import Frozen, StepFunction

HostBatch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is and what it leaves behind.

    ``batch_size`` counts rows of a step over all devices, taken in ``accumulation`` parts.  Steps that are multiples of
    an interval count; checkpoints and evaluation also happen at the last one.  ``profile_steps`` are traced.
    ``rules`` are the sharding rules, written as for ``--rules``; None where nobody says them.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    seed: int = 0
    log_interval: int = 1
    checkpoint_interval: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    evaluation_interval: int = 1000
    evaluation_pictures: int = 64
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    guard: Guard = Guard()
    profile_steps: tuple[int, ...] = ()
    rules: str | None = None

    def __post_init__(self) -> None:
        parse_rules(self.rules or "")
        for name in (
            "steps",
            "batch_size",
            "accumulation",
            "log_interval",
            "checkpoint_interval",
            "keep_last",
            "evaluation_interval",
            "evaluation_pictures",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"run.{name} {getattr(self, name)}: expected 1 or more")
        if self.batch_size % self.accumulation:
            raise InputError(
                f"run.batch_size {self.batch_size} does not divide into {self.accumulation} parts (run.accumulation)"
            )


class Batches(Protocol):
    """This host's part of every batch, in an order that can be continued exactly."""

    def __next__(self) -> HostBatch:
        """The next batch; leading dimension: this host's rows."""
        ...

    def state(self) -> dict[str, Any]:
        """The position after the batch that was returned last, as plain data."""
        ...

    def restore(self, states: Any) -> None:
        """Continues after the positions of all hosts that saved them."""
        ...

    def report(self) -> Mapping[str, Any]:
        """Counts of what was read and skipped so far."""
        ...

    def close(self) -> None:
        """Stops the workers."""
        ...


@dataclasses.dataclass(frozen=True)
class Load:
    """What a batch is by counting: tokens that are not padding, and floating-point operations that its step needs."""

    tokens: int
    flops: float


class Evaluate(Protocol):
    """Looks at a state: numbers for the log, pictures into a folder.  It changes nothing."""

    def __call__(self, state: TrainState, step: int, pictures: Path) -> Numbers: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Attributes:

    initial: makes the state before the first step.
    step: the step (``training/step.py``), not jitted.
    frozen: what it reads besides.
    batches: opens the data; several hosts each read their part.
    rates: learning rates by the name under which they are logged.
    evaluate: run on schedule.
    like: the state's shapes and places, for a checkpoint to be read into; by default those of ``initial``.
    load: of this host's part of a batch; None where speed is not counted in tokens.
    """

    initial: Callable[[], TrainState]
    step: StepFunction
    frozen: Frozen
    batches: Callable[[], Batches]
    rates: Mapping[str, optax.Schedule]
    evaluate: Evaluate
    like: Callable[[], TrainState] | None = None
    load: Callable[[HostBatch], Load] | None = None
