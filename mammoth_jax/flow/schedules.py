"""Where times lie: the sampler's grids, and the shifts that training applies to drawn times.

Bigger pictures keep more of their structure at the same noise level, so both move times towards noise as pictures grow:
``t / (m - m t + t)`` with ``m > 1`` does so.
"""

import dataclasses
import math
from typing import Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mammoth_jax.core.types import Array, Float, Int

T = TypeVar("T")


def warp(t: T, m: T) -> T:
    """``t / (m - m t + t)``: keeps 0 and 1, and ``m = 1`` changes nothing.  Any array type."""
    return t / (m - m * t + t)  # type: ignore[operator]


def uniform_times(num_steps: int, num_rows: int) -> np.ndarray:
    """``num_steps + 1`` equally spaced times from 0 to 1 for each row, float32 ``[steps + 1, b]``."""
    return np.repeat(np.linspace(0, 1, num_steps + 1, dtype=np.float32)[:, None], num_rows, axis=1)


def inference_times(num_steps: int, latent_sizes: ArrayLike) -> np.ndarray:
    """The released sampler's times: uniform ones warped by ``m = sqrt(rows * columns) / 40`` of each row's latent.

    Args:
      num_steps: steps of the sampler.
      latent_sizes: (rows, columns) of each row's latent picture, in latent cells (not patches).

    Returns:
      float32 ``[steps + 1, b]``, ascending from 0 to 1; computed in float64.
    """
    sizes = np.asarray(latent_sizes, np.float64)
    m = np.sqrt(sizes[:, 0] * sizes[:, 1]) / 40
    times = uniform_times(num_steps, len(sizes)).astype(np.float64)
    return warp(times, m).astype(np.float32)


@runtime_checkable
class TimeShift(Protocol):
    """Moves training times by the number of patch tokens of each row's picture."""

    def __call__(self, t: Float[Array, " b"], num_tokens: Int[Array, " b"]) -> Float[Array, " b"]:
        """The shifted times."""
        ...


@dataclasses.dataclass(frozen=True)
class NoShift:
    """Times as drawn."""

    def __call__(self, t: Float[Array, " b"], num_tokens: Int[Array, " b"]) -> Float[Array, " b"]:
        return t


@dataclasses.dataclass(frozen=True)
class ExponentialShift:
    """Released shift "v1": ``1 - e^mu / (e^mu + 1 / (1 - t) - 1)``, ``mu`` linear in the number of tokens.

    ``mu`` goes from ``base_shift`` at ``base_tokens`` to ``max_shift`` at ``max_tokens``.  ``fixed_tokens`` uses that
    number for every picture ("static").
    """

    base_shift: float = 0.5
    max_shift: float = 1.15
    base_tokens: int = 256
    max_tokens: int = 4096
    fixed_tokens: int | None = None

    def __call__(self, t: Float[Array, " b"], num_tokens: Int[Array, " b"]) -> Float[Array, " b"]:
        tokens = jnp.asarray(num_tokens if self.fixed_tokens is None else self.fixed_tokens, t.dtype)
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        mu = self.base_shift + slope * (tokens - self.base_tokens)
        # 1 - e^mu / (e^mu + 1/s - 1) with s = 1 - t, cleared of its division by zero at t = 1.
        return warp(t, jnp.exp(mu))


@dataclasses.dataclass(frozen=True)
class ResolutionShift:
    """Released shift "v2": the sampler's warp with ``m = sqrt(tokens / base_tokens)``, 400 tokens being unshifted.

    ``fixed_tokens`` uses that number for every picture ("static").
    """

    base_tokens: int = 400
    fixed_tokens: int | None = None

    def __call__(self, t: Float[Array, " b"], num_tokens: Int[Array, " b"]) -> Float[Array, " b"]:
        tokens = jnp.asarray(num_tokens if self.fixed_tokens is None else self.fixed_tokens, t.dtype)
        return warp(t, jnp.sqrt(tokens) / math.sqrt(self.base_tokens))
