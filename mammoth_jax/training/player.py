"""One network that is trained with a loss and an optimiser of its own.

A step trains its players one after the other: a tokenizer and its discriminator, or the joint model alone.  Gradients
are taken for a player's own parameters only, so that no half of a step can move what belongs to another.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import optax
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.core.sharding import constrain_weight
from mammoth_jax.core.types import Array, Float, Int, PRNGKeyArray
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.training.lora import Adapters

Named = dict[str, Array]
Batch = Mapping[str, Array]
Models = Mapping[str, nnx.Module]
"""All networks of a step by name: the players, and those that are never trained."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an objective makes of a micro-batch.

    Attributes:
        loss: what is differentiated; the step takes the mean over micro-batches.  It need not be the sum of the terms.
        terms: what is logged, as sums and weights.
        passed: what the players after this one see of it, as constants.
        carried: what the next micro-batch and the next step find; see ``TrainState.carried``.
    """

    loss: Float[Array, ""]
    terms: dict[str, LossSum]
    passed: Any
    carried: Any


class Objective(Protocol):
    """The loss of one player on one micro-batch."""

    def __call__(
        self,
        models: Models,
        batch: Batch,
        passed: Any,
        carried: Any,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        whole: Any,
    ) -> Outcome:
        """Pure.

        Args:
          models: all networks of the step.
          batch: a micro-batch.
          passed: what the player before this one handed on (``None`` for the first).
          carried: see :class:`Outcome`.
          key: see ``Player.micro_key``.
          step: finished steps.
          whole: what ``Player.survey`` says of the whole batch, ``None`` without one.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """Attributes:

    template: the network's structure (``core.parameters.abstract``).
    names: its trained parameters; the others stay as they are and come from the step's ``frozen``.
    objective: its loss.
    optimizer: from gradients to updates, over ``names``.
    adapters: low-rank adapters, whose factors are then what is trained, and ``names`` theirs; the network's own
        parameters are all frozen.
    ema_decay: of the moving average of its weights; None keeps none.
    keep_float32: patterns of parameters that are never rounded to the compute dtype.
    survey: looks at the whole batch ``[accumulation, rows, ...]`` before its parts are taken one by one (what a loss
        over tokens is divided by, where parts and devices hold different numbers of them).
    micro_key: a micro-batch's random key from the step's and its number.  Objectives whose samples have numbers of
        their own take the step's as it is, so that a sample's draws do not depend on the part that it is in.
    """

    template: nnx.Module
    names: frozenset[str]
    objective: Objective
    optimizer: optax.GradientTransformation
    adapters: Adapters | None = None
    ema_decay: float | None = None
    keep_float32: tuple[str, ...] = ()
    survey: Callable[[Batch], Any] | None = None
    micro_key: Callable[[PRNGKeyArray, Int[Array, ""]], PRNGKeyArray] = jax.random.fold_in

    def declared(self) -> dict[str, nnx.Param]:
        """Every parameter, trained or not, as a shape with its axes."""
        own = named_parameters(self.template)
        return own if self.adapters is None else {**own, **self.adapters.declared}

    def trained(self, module: nnx.Module) -> Named:
        """The trained parameters of a module of this structure."""
        return {name: p[...] for name, p in named_parameters(module).items() if name in self.names}

    def rest(self, module: nnx.Module) -> Named:
        """Its other parameters."""
        return {name: p[...] for name, p in named_parameters(module).items() if name not in self.names}

    def assemble(self, trained: Named, rest: Named, dtype: DTypeLike) -> nnx.Module:
        """The network that runs, in ``dtype`` but for ``keep_float32``."""

        def held(name: str, x: Array) -> Array:
            kept = any(re.search(pattern, name) for pattern in self.keep_float32)
            return x if kept else x.astype(dtype)

        values = {**trained, **rest}
        if self.adapters is not None:
            values = self.adapters.merge(values)
        axes = {name: p.axes for name, p in named_parameters(self.template).items()}
        # after rounding, so that gradients too are summed over devices in this dtype
        values = {n: constrain_weight(held(n, x), *axes[n]) for n, x in values.items()}
        return with_parameters(self.template, values)
