"""Laws of the training time, each an object that draws one time in [0, 1) for each sample from the sample's own key.

Nothing here looks at the rest of the batch, so that a sample's time does not depend on how rows are packed.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Key

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float, Int


@runtime_checkable
class TimeLaw(Protocol):
    """Draws times."""

    def __call__(self, keys: Key[Array, " b"], numbers: Int[Array, " b"]) -> Float[Array, " b"]:
        """One time a sample; ``numbers`` are the samples' places in the order in which they come."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform between ``low`` and ``high``."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, keys: Key[Array, " b"], numbers: Int[Array, " b"]) -> Float[Array, " b"]:
        return jax.vmap(lambda key: jax.random.uniform(key, minval=self.low, maxval=self.high))(keys)


@dataclasses.dataclass(frozen=True)
class LogisticNormal:
    """The logistic function of a normal variable; the release's default is the standard normal."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, keys: Key[Array, " b"], numbers: Int[Array, " b"]) -> Float[Array, " b"]:
        return self.from_standard_normal(jax.vmap(jax.random.normal)(keys))

    def from_standard_normal(self, u: Float[Array, " b"]) -> Float[Array, " b"]:
        """The times of given standard normal draws."""
        return jax.nn.sigmoid(self.mean + self.std * u)


@dataclasses.dataclass(frozen=True)
class StratifiedUniform:
    """One uniform draw in one of ``parts`` equal parts of [0, 1): the samples take the parts in turn.

    The parts come in the order of van der Corput, so that of any 2^k samples in a row (k up to the logarithm of
    ``parts``) each lies in another 2^k-th of [0, 1).
    """

    parts: int = 64

    def __post_init__(self) -> None:
        if self.parts < 1 or self.parts & (self.parts - 1):
            raise InputError(f"time_law.parts {self.parts}: expected a power of two")

    def __call__(self, keys: Key[Array, " b"], numbers: Int[Array, " b"]) -> Float[Array, " b"]:
        bits = self.parts.bit_length() - 1
        number = numbers.astype(jnp.uint32)
        part = jnp.zeros_like(number)
        for bit in range(bits):
            part = part | (((number >> bit) & 1) << (bits - 1 - bit))
        return (part.astype(jnp.float32) + jax.vmap(jax.random.uniform)(keys)) / self.parts
