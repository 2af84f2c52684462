"""Evaluations of the diffusion transformer that reuse an earlier one's result: step caching, decided on the device.

After TeaCache (Liu et al. 2024, "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", section 3.3):
what the first joint block reads changes little between two steps where the velocity changes little.  The relative L1
change of that modulated input is summed over the steps; while the sum stays below a threshold the joint blocks are not
run, and what they added when they last ran is added again.  The paper rescales the change by a polynomial fitted to a
trained model; here it is taken as it is.

The choice is one for the whole batch, by the row that changes most: rows of a batch are computed together, so that a
row could save nothing by itself.  With a cache a picture therefore depends on its batch.  The first evaluation and the
last step always run.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mammoth_jax.core.compat import ReleaseFaults
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.models.dit.transformer import Context, DiT, References


@dataclasses.dataclass(frozen=True)
class StepCache:
    """``threshold`` is the summed relative change up to which a result is reused; it must be more than 0."""

    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"{self.threshold=} must be more than 0; without a cache pass None")


class Network(Protocol):
    """The transformer as a solver's loop evaluates it, with what it carries from evaluation to evaluation."""

    def start(self, rows: int, length: int) -> Any:
        """The carry before the first evaluation of ``rows`` joint sequences of ``length``."""
        ...

    def __call__(
        self,
        carry: Any,
        last: Bool[Array, ""],
        x: Float[Array, "b n p"],
        time: Float[Array, " b"],
        context: Context,
        sizes: Int[Array, "b 2"],
        references: References | None,
    ) -> tuple[Float[Array, "b n p"], Any]:
        """The velocity and the next carry; ``last`` says whether this is the last step."""
        ...


@dataclasses.dataclass(frozen=True)
class Direct:
    """Every evaluation runs the transformer."""

    dit: DiT
    faults: ReleaseFaults

    def start(self, rows: int, length: int) -> None:
        return None

    def __call__(self, carry, last, x, time, context, sizes, references):
        return self.dit(x, time, context, sizes, references, faults=self.faults), None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CacheState:
    """What is remembered between evaluations."""

    modulated: Float[Array, "b s d"]  # what the first block read at the last evaluation
    residual: Float[Array, "b s d"]  # what the blocks added when they last ran
    change: Float[Array, ""]  # summed since then
    filled: Bool[Array, ""]
    reused: Int[Array, ""]  # evaluations that did not run the blocks


@dataclasses.dataclass(frozen=True)
class Cached:
    """Evaluations within ``cache.threshold`` reuse the blocks' last result."""

    dit: DiT
    faults: ReleaseFaults
    cache: StepCache

    def start(self, rows: int, length: int) -> CacheState:
        empty = jnp.zeros((rows, length, self.dit.config.hidden_size), self.dit.dtype)
        none = jnp.zeros((), jnp.int32)
        return CacheState(empty, empty, jnp.zeros(()), jnp.asarray(False), none)

    def __call__(self, carry: CacheState, last, x, time, context, sizes, references):
        joint = self.dit.embed(x, time, context, sizes, references, faults=self.faults)
        first = jax.tree.map(lambda stack: stack[0], self.dit.layers)
        modulated = first.modulated_input(joint.tokens, joint.time)
        change = carry.change + relative_change(modulated, carry.modulated, joint.mask)
        reuse = carry.filled & ~last & (change < self.cache.threshold)

        def again(_: None) -> tuple[Array, Array, Array]:
            return joint.tokens + carry.residual, carry.residual, change

        def run(_: None) -> tuple[Array, Array, Array]:
            tokens, _blocks = self.dit.run(joint)
            return tokens, tokens - joint.tokens, jnp.zeros_like(change)

        tokens, residual, change = jax.lax.cond(reuse, again, run, None)
        velocity = self.dit.read_out(joint, tokens)
        filled = jnp.ones_like(carry.filled)
        return velocity, CacheState(modulated, residual, change, filled, carry.reused + reuse)


def relative_change(
    new: Float[Array, "b s d"], old: Float[Array, "b s d"], mask: Bool[Array, "b s"]
) -> Float[Array, ""]:
    """``sum |new - old| / sum |old|`` over a row's valid tokens, of the row where it is largest."""
    new, old = new.astype(jnp.float32), old.astype(jnp.float32)
    difference = jnp.sum(jnp.abs(new - old) * mask[..., None], axis=(1, 2))
    size = jnp.sum(jnp.abs(old) * mask[..., None], axis=(1, 2))
    return jnp.max(difference / jnp.maximum(size, 1e-20))
