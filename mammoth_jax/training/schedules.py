"""Learning rates over the steps of a run."""

import dataclasses

import jax.numpy as jnp
import optax

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear from 0 to ``learning_rate`` over ``warmup_steps``, then half a cosine down to ``end`` at the last step."""

    learning_rate: float
    warmup_steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self.learning_rate, self.warmup_steps)
        if not 0 <= self.end <= self.learning_rate:
            raise InputError(f"end {self.end}: expected between 0 and learning_rate {self.learning_rate}")

    def build(self, steps: int) -> optax.Schedule:
        """The rate as a function of the step, for a run of ``steps``.

        Raises:
          InputError: the run is not longer than its warm-up.
        """
        if steps <= self.warmup_steps:
            raise InputError(
                f"steps {steps} must exceed warmup_steps {self.warmup_steps}; lengthen the run or shorten the warm-up"
            )
        decay = optax.cosine_decay_schedule(
            self.learning_rate, steps - self.warmup_steps, self.end / self.learning_rate
        )
        return _after_warmup(self.learning_rate, self.warmup_steps, decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupConstant:
    """Linear from 0 to ``learning_rate`` over ``warmup_steps``, then constant."""

    learning_rate: float
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check(self.learning_rate, self.warmup_steps)

    def build(self, steps: int) -> optax.Schedule:
        """The rate as a function of the step; ``steps`` does not matter."""
        return _after_warmup(
            self.learning_rate, self.warmup_steps, optax.constant_schedule(self.learning_rate)
        )


Schedule = WarmupCosine | WarmupConstant


def _after_warmup(peak: float, warmup_steps: int, then: optax.Schedule) -> optax.Schedule:
    # The first step already moves: its rate is peak / warmup_steps rather than 0.
    def rate(step):
        rising = peak * (step + 1) / max(warmup_steps, 1)
        return jnp.where(step < warmup_steps, rising, then(jnp.maximum(step - warmup_steps, 0)))

    return rate


def _check(learning_rate: float, warmup_steps: int) -> None:
    if learning_rate <= 0:
        raise InputError(f"learning_rate {learning_rate}: expected a positive number")
    if warmup_steps < 0:
        raise InputError(f"warmup_steps {warmup_steps}: expected 0 or more")
