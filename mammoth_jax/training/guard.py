"""Which steps are not taken, and when a run gives up.

A step whose terms or gradients are not finite changes nothing; with ``spike`` set, neither does one whose gradients are
far larger than those of the steps before it.  Such steps are counted, and too many of them in a row stop the run.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Bool, Float

GuardState = dict[str, Any]
"""Empty, or ``norms`` (the average gradient norm of each player), and how many steps were ``taken``, were ``skipped``,
and were skipped ``in_row`` until now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
    """Attributes:

    stop_after: skipped steps in a row that stop the run.
    spike: a step is skipped whose gradient norm is more than this many times the average of the steps taken; None
        looks only for numbers that are not finite.
    average_steps: about how many steps that average covers; before as many were taken nothing counts as a spike.
    """

    stop_after: int = 1
    spike: float | None = None
    average_steps: int = 100

    def __post_init__(self) -> None:
        if self.stop_after < 1 or self.average_steps < 1:
            raise InputError(
                f"guard.stop_after {self.stop_after}, guard.average_steps {self.average_steps}: expected 1 or more"
            )
        if self.spike is not None and self.spike <= 1:
            raise InputError(f"guard.spike {self.spike}: expected a number above 1, or null")

    def start(self, players: Iterable[str]) -> GuardState:
        """What is kept from step to step; nothing where the first skipped step stops the run."""
        if self.stop_after == 1 and self.spike is None:
            return {}
        counts = {name: jnp.int32(0) for name in ("taken", "skipped", "in_row")}
        return {"norms": {player: jnp.float32(0) for player in players}, **counts}

    def judge(
        self, state: GuardState, finite: Bool[Array, ""], norms: Mapping[str, Float[Array, ""]]
    ) -> tuple[Bool[Array, ""], GuardState]:
        """Whether a step is taken, and the state after it.

        Args:
          state: from :meth:`start`, or the step before.
          finite: whether all terms and gradients are.
          norms: of each player's gradients, before clipping.
        """
        if not state:
            return finite, state
        taken = finite
        if self.spike is not None:
            warm = state["taken"] >= self.average_steps
            spikes = [norms[player] > self.spike * mean for player, mean in state["norms"].items()]
            taken = finite & ~(warm & jnp.any(jnp.stack(spikes)))
        share = 1 / jnp.minimum(state["taken"] + 1, self.average_steps)
        means = {
            player: jnp.where(taken, mean + share * (norms[player] - mean), mean)
            for player, mean in state["norms"].items()
        }
        return taken, {
            "norms": means,
            "taken": state["taken"] + taken,
            "skipped": state["skipped"] + ~taken,
            "in_row": jnp.where(taken, 0, state["in_row"] + 1),
        }
