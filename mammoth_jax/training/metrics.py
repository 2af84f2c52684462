"""Where a run's numbers go: one JSON line a step always, TensorBoard and Weights & Biases as extras."""

import importlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_text_whole

FILE, WANDB_ID = "metrics.jsonl", "wandb_id"
Numbers = Mapping[str, Any]
"""Names to numbers; groups are written ``group/name``."""


class Writer(Protocol):
    """Receives the numbers of finished steps."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Numbers of one step; steps increase."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class JsonLines:
    """``metrics.jsonl``: a line a step, each step once.

    A run that continues from ``step`` first takes out what was logged after it (and a line that was cut off).
    """

    def __init__(self, run: Path, step: int):
        self._file = run / FILE
        if self._file.exists():
            kept = [record for record in read_metrics(run) if record["step"] <= step]
            write_text_whole(self._file, "".join(map(_line, kept)))
        self._stream = self._file.open("a", encoding="utf-8")

    def write(self, step: int, numbers: Numbers) -> None:
        """See :class:`Writer`; the line is on disk when this returns."""
        self._stream.write(_line({"step": step, **numbers}))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """See :class:`Writer`."""
        self._stream.close()


class TensorBoard:
    """TensorBoard event files under ``run/tensorboard`` (extra ``tensorboard``)."""

    def __init__(self, run: Path, step: int):
        module = _extra("tensorboardX", "tensorboard")
        self._writer = module.SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Numbers) -> None:
        """See :class:`Writer`."""
        for name, value in numbers.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See :class:`Writer`."""
        self._writer.close()


class WeightsAndBiases:
    """A Weights & Biases run with the name of the run's folder (extra ``wandb``); it resumes under the id in there.

    ``step`` is a metric of its own: W&B's steps only grow, and a run goes on from a checkpoint before its last line.
    """

    def __init__(self, run: Path, step: int):
        wandb = _extra("wandb", "wandb")
        name = run.resolve().name
        self._run = wandb.init(
            project="mammoth_jax", name=name, id=_kept_id(run / WANDB_ID), resume="allow", dir=str(run)
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Numbers) -> None:
        """See :class:`Writer`."""
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        """See :class:`Writer`."""
        self._run.finish()


LOGGERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""Writers beside the JSON lines, by the name used in ``run.loggers``."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log in order; a last line that was cut off is left out.

    Raises:
      InputError: there is no log, or a line inside it is damaged.
    """
    file = run / FILE
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror or error}; is {run} a training run?"
        ) from error
    records = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is nothing, or cut off
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{file}, line {number} is not JSON: {line[:60]!r}") from error
    return records


def _kept_id(file: Path) -> str:
    """What is in the file; at first a new one, as names of folders repeat."""
    if not file.exists():
        write_text_whole(file, secrets.token_hex(8))
    return file.read_text(encoding="utf-8").strip()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"logger {extra!r} needs the package {module}; install it with: pip install 'mammoth-jax[{extra}]'"
        ) from error
