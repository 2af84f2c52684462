"""What a person sees of a run: where its time goes, and a line now and then."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from mammoth_jax.training.work import Load

_SECONDS_BETWEEN_LINES = 10.0


class Stopwatch:
    """Seconds spent in named parts since the last lap."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts the block's time to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._parts[part] = self._parts.get(part, 0.0) + time.perf_counter() - start

    def __getitem__(self, part: str) -> float:
        """The seconds of a part so far."""
        return self._parts.get(part, 0.0)

    def lap(self) -> dict[str, float]:
        """The seconds of each part, which start again from 0."""
        parts, self._parts = self._parts, {}
        return parts


def speed(loads: Sequence[Load], seconds: float, parts: int, peak: float | None) -> dict[str, float]:
    """Tokens a second of all hosts, and the share of the devices' operations that the model needed.

    Args:
      loads: of this host's parts of some batches.
      seconds: in which they were worked off, evaluation and checkpoints left out.
      parts: into which hosts divide a batch.
      peak: operations a second of the devices that work on such a part, if known.
    """
    tokens, flops = sum(load.tokens for load in loads), sum(load.flops for load in loads)
    out = {"speed/tokens_per_second": tokens * parts / seconds}
    return out if peak is None else out | {"speed/model_flops_utilization": flops / seconds / peak}


class Console:
    """A bar on a terminal; elsewhere a line every ten seconds, and one for each evaluation."""

    def __init__(self, steps: int, stream: TextIO | None = None):
        self._stream = stream if stream is not None else sys.stderr
        self._steps = steps
        self._bar = tqdm(total=steps, file=self._stream, unit="step") if self._stream.isatty() else None
        self._last, self._from = time.perf_counter(), 0

    def __call__(self, step: int, terms: Mapping[str, float], more: Mapping[str, Any]) -> None:
        """Shows a finished step."""
        evaluation = {name: x for name, x in more.items() if name.startswith("evaluation/")}
        text = " ".join(f"{name}={value:.4g}" for name, value in terms.items())
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(text)
            if evaluation:
                self._bar.write(f"step {step}: {_text(evaluation)}", file=self._stream)
            return
        now = time.perf_counter()
        if not evaluation and now - self._last < _SECONDS_BETWEEN_LINES and step != self._steps:
            return
        rate = (step - self._from) / max(now - self._last, 1e-9) if self._from else 0.0
        speed = f", {rate:.2f} steps/s" if rate else ""
        self._stream.write(f"step {step}/{self._steps}{speed}: {text} {_text(evaluation)}".rstrip() + "\n")
        self._stream.flush()
        self._last, self._from = now, step


def _text(numbers: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={x:.4g}" if isinstance(x, float) else f"{name}={x}" for name, x in numbers.items()
    )
