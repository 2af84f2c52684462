"""Codes that no picture chooses are moved to where encoder outputs are.

Such a code gets no gradient and would stay unused for ever.  How long each has been idle is explicit state; which
vectors replace it depends on a key alone, so that the result is the same on any number of devices.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Bool, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revival:
    """A code unused for ``idle_steps`` steps is replaced; ``decay`` is that of the average of the counts."""

    idle_steps: int = 500
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.idle_steps < 1:
            raise InputError(f"revival.idle_steps {self.idle_steps}: expected at least 1")
        if not 0 <= self.decay < 1:
            raise InputError(f"revival.decay {self.decay}: expected a number from 0 up to, not including, 1")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CodeUsage:
    """``counts`` are moving averages of how often a step chooses each code, ``idle`` the steps since it last did."""

    counts: Float[Array, " v"]
    idle: Int[Array, " v"]

    @classmethod
    def start(cls, codebook_size: int) -> "CodeUsage":
        """Nothing chosen yet, nothing idle yet."""
        return cls(jnp.zeros(codebook_size), jnp.zeros(codebook_size, jnp.int32))

    def update(self, ids: Int[Array, "..."], decay: float) -> "CodeUsage":
        """The usage after a step that chose ``ids``."""
        counts = count_codes(ids, self.counts.size)
        return CodeUsage(decay * self.counts + (1 - decay) * counts, jnp.where(counts > 0, 0, self.idle + 1))


class Revived(NamedTuple):
    """The new table, the usage after it, and which rows were replaced (their optimiser moments are stale)."""

    codebook: Float[Array, "v c"]
    usage: CodeUsage
    replaced: Bool[Array, " v"]


def count_codes(ids: Int[Array, "..."], codebook_size: int) -> Float[Array, " v"]:
    """How often each code is among ``ids``."""
    return jnp.zeros(codebook_size).at[ids.reshape(-1)].add(1.0)


def revive_codes(
    revival: Revival,
    usage: CodeUsage,
    codebook: Float[Array, "v c"],
    ids: Int[Array, "..."],
    z: Float[Array, "... c"],
    key: PRNGKeyArray,
) -> Revived:
    """One step of usage, and encoder outputs in place of the codes that have been idle too long.

    Every dead code gets another output, at random; with more dead codes than outputs, those with higher ids wait.

    Args:
      revival: when.
      usage: before this step.
      codebook: the table as it is stored.
      ids: the codes that this step chose.
      z: the vectors that the quantiser compared in this step (``Quantized.z``: normalised if the codes are).
      key: named, of this step.
    """
    usage = usage.update(ids, revival.decay)
    vectors = at_least_float32(z).reshape(-1, z.shape[-1])
    dead = usage.idle >= revival.idle_steps
    rank = jnp.cumsum(dead) - 1
    replaced = dead & (rank < vectors.shape[0])
    order = jax.random.permutation(key, vectors.shape[0])
    drawn = jnp.take(vectors, jnp.take(order, rank, mode="clip"), axis=0)
    new = jnp.where(replaced[:, None], jax.lax.stop_gradient(drawn), codebook).astype(codebook.dtype)
    return Revived(new, CodeUsage(usage.counts, jnp.where(replaced, 0, usage.idle)), replaced)
