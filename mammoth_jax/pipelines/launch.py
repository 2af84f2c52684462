"""Launching programs, with progress."""

from collections.abc import Callable
from typing import Any

import jax

Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and of how much."""


def launcher(progress: Progress | None) -> Callable[..., Any]:
    """Runs a program; with ``progress`` it says when a stage starts and, waiting for it, when it is done."""

    def launch(stage: str, program: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if progress is None:
            return program(*args, **kwargs)
        progress(stage, 0, 1)
        out = jax.block_until_ready(program(*args, **kwargs))
        progress(stage, 1, 1)
        return out

    return launch
