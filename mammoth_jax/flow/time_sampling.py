"""Laws of the training time, each an object that draws one time a row in [0, 1)."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, PRNGKeyArray


@runtime_checkable
class TimeLaw(Protocol):
    """Draws times."""

    def __call__(self, key: PRNGKeyArray, num_rows: int) -> Float[Array, " b"]:
        """One time a row."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform between ``low`` and ``high``."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, key: PRNGKeyArray, num_rows: int) -> Float[Array, " b"]:
        return jax.random.uniform(key, (num_rows,), minval=self.low, maxval=self.high)


@dataclasses.dataclass(frozen=True)
class LogisticNormal:
    """The logistic function of a normal variable; the release's default is the standard normal."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, key: PRNGKeyArray, num_rows: int) -> Float[Array, " b"]:
        return self.from_standard_normal(jax.random.normal(key, (num_rows,)))

    def from_standard_normal(self, u: Float[Array, " b"]) -> Float[Array, " b"]:
        """The times of given standard normal draws."""
        return jax.nn.sigmoid(self.mean + self.std * u)


@dataclasses.dataclass(frozen=True)
class StratifiedUniform:
    """One uniform draw in each of ``num_rows`` equal parts of [0, 1): row ``i`` gets the ``i``-th part."""

    def __call__(self, key: PRNGKeyArray, num_rows: int) -> Float[Array, " b"]:
        return (jnp.arange(num_rows) + jax.random.uniform(key, (num_rows,))) / num_rows
