"""One optimisation step of all players, compiled once.

The batch comes as ``[accumulation, rows, ...]``.  For each player in turn::

    gradients = mean over micro-batches of d outcome.loss / d its parameters
    parameters, moments, average = optimiser(gradients)

All players' gradients are taken at the weights with which the step began, so that their order decides only what is
passed on (a reconstruction goes to the discriminator as a constant).  A step that the guard refuses (a logged term or a
gradient is not finite, for one) changes nothing but the counter: the loop decides what to do about it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.rng import named_key
from mammoth_jax.core.types import Array, Bool, Float, Int, PRNGKeyArray
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.training.guard import Guard, GuardState
from mammoth_jax.training.player import Batch, Named, Outcome, Player
from mammoth_jax.training.state import TrainState

Finish = Callable[[TrainState, dict[str, Any], PRNGKeyArray], TrainState]
"""A change of the updated state outside the gradients, from what the players passed on (dead codes revived)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a step reads and never changes: whole networks, and the untrained parameters of players."""

    models: dict[str, nnx.Module]
    rest: dict[str, Named]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepReport:
    """Sums and weights of every term over the batch, gradient norms by player, whether the step was applied, and what
    the guard then keeps.
    """

    terms: dict[str, LossSum]
    gradient_norms: dict[str, Array]
    applied: Bool[Array, ""]
    guard: GuardState


StepFunction = Callable[[TrainState, Frozen, Batch, PRNGKeyArray], tuple[TrainState, StepReport]]


def build_step(
    players: Mapping[str, Player],
    *,
    accumulation: int = 1,
    dtype: DTypeLike = jnp.float32,
    finish: Finish | None = None,
    guard: Guard = Guard(),
) -> StepFunction:
    """The step as a pure function; jit it with the state donated.

    Args:
      players: who is trained, in order.
      accumulation: leading dimension of the batch.
      dtype: of weights and activations in the networks; master weights and gradients are float32.
      finish: called on the updated state.
      guard: decides which steps are taken.
    """

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, root: PRNGKeyArray
    ) -> tuple[TrainState, StepReport]:
        passed, carried, handed = None, state.carried, {}
        params, moments, ema = dict(state.params), dict(state.optimizer), dict(state.ema)
        terms: dict[str, LossSum] = {}
        norms: dict[str, Array] = {}
        for name, player in players.items():
            others = {
                other: players[other].assemble(state.params[other], frozen.rest[other], dtype)
                for other in players
                if other != name
            }
            key = named_key(root, f"train/{name}", state.step)
            accumulate = _Accumulate(name, player, {**frozen.models, **others}, frozen.rest[name], dtype)
            gradients, outcome = accumulate(
                state.params[name], batch, passed, carried, key, state.step, accumulation
            )
            passed, carried = outcome.passed, outcome.carried
            handed[name] = passed
            terms |= outcome.terms
            norms[name] = optax.tree.norm(gradients)
            updates, moments[name] = player.optimizer.update(
                gradients, state.optimizer[name], state.params[name]
            )
            params[name] = optax.apply_updates(state.params[name], updates)
            if player.ema_decay is not None:
                kept = averaging_decay(player.ema_decay, state.step)
                ema[name] = optax.tree.add(
                    optax.tree.scale(kept, state.ema[name]), optax.tree.scale(1 - kept, params[name])
                )
        applied, guarded = guard.judge(state.guard, _finite(terms, norms), norms)
        new = TrainState(state.step, params, moments, ema, carried, state.guard)
        if finish is not None:
            new = finish(new, handed, named_key(root, "train/finish", state.step))
        new = jax.tree.map(lambda after, before: jnp.where(applied, after, before), new, state)
        new = dataclasses.replace(new, step=state.step + 1, guard=guarded)
        return new, StepReport(terms, norms, applied, guarded)

    return step


def averaging_decay(decay: float, step: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """What the moving average keeps of itself after ``step`` earlier ones: at most ``decay``, less in the beginning.

    Else the average of a young run would be mostly the weights that it began with.  With n updates so far it is at most
    (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """
    updates = step.astype(jnp.float32) + 1
    return jnp.minimum(decay, (1 + updates) / (10 + updates))


@dataclasses.dataclass(frozen=True)
class _Accumulate:
    """Gradients and outcome of one player over all micro-batches."""

    name: str
    player: Player
    others: Mapping[str, nnx.Module]
    rest: Named
    dtype: DTypeLike

    def __call__(
        self,
        own: Named,
        batch: Batch,
        passed: Any,
        carried: Any,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        accumulation: int,
    ) -> tuple[Named, Outcome]:
        whole = None if self.player.survey is None else self.player.survey(batch)

        def micro(state: tuple[Named, Any], index: Int[Array, ""]) -> tuple[tuple[Named, Any], Outcome]:
            total, carried = state
            rows, given = jax.tree.map(lambda x: x[index], (dict(batch), passed))
            own_key = self.player.micro_key(key, index)
            gradient, outcome = self._gradient(own, rows, given, carried, own_key, step, whole)
            total = jax.tree.map(lambda a, b: a + b / accumulation, total, gradient)
            return (total, outcome.carried), dataclasses.replace(outcome, carried=None)

        start = (jax.tree.map(jnp.zeros_like, own), carried)
        if accumulation == 1:  # without a loop, in which some backends run convolutions on one core
            (total, carried), outcome = micro(start, jnp.int32(0))
            outcomes = jax.tree.map(lambda x: x[None], outcome)
        else:
            (total, carried), outcomes = jax.lax.scan(micro, start, jnp.arange(accumulation))
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), outcomes.terms)
        return total, Outcome(jnp.mean(outcomes.loss), sums, outcomes.passed, carried)

    def _gradient(
        self,
        own: Named,
        batch: Batch,
        passed: Any,
        carried: Any,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        whole: Any,
    ) -> tuple[Named, Outcome]:
        def loss(own: Named) -> tuple[Array, Outcome]:
            models = {**self.others, self.name: self.player.assemble(own, self.rest, self.dtype)}
            outcome = self.player.objective(models, batch, passed, carried, key, step, whole)
            constant = jax.lax.stop_gradient(dataclasses.replace(outcome, loss=jnp.float32(0)))
            return outcome.loss, dataclasses.replace(constant, loss=outcome.loss)

        (_, outcome), gradient = jax.value_and_grad(loss, has_aux=True)(own)
        return gradient, outcome


def _finite(terms: Mapping[str, LossSum], norms: Mapping[str, Array]) -> Bool[Array, ""]:
    values = [x for term in terms.values() for x in (term.total, term.weight)]
    return jnp.all(jnp.isfinite(jnp.stack([*values, *norms.values()])))
