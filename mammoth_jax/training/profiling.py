"""Profiler traces of chosen steps, to be opened with TensorBoard or Perfetto."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

FOLDER = "profile"


class Profiler:
    """Traces steps into ``RUN/profile/STEP``; steps that follow each other share one trace, named after the first."""

    def __init__(self, run: Path, steps: Sequence[int]):
        self._folder, self._steps = run / FOLDER, frozenset(steps)
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """Starts a trace if the step is wanted; work that was queued before is not in it."""
        if step in self._steps and not self._running:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder / str(step)))
            self._running = True

    def after(self, step: int, state: Any) -> None:
        """Ends the trace with the step's own work, unless the next one is wanted too."""
        if self._running and step + 1 not in self._steps:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Writes the trace under way, if there is one."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
