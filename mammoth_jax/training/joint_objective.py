"""The joint objective as the step calls it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mammoth_jax.core.types import Array, Int, PRNGKeyArray
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.joint import joint_forward, joint_terms, survey, weighted_loss
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.joint_draws import Draws, draw
from mammoth_jax.objectives.noise import Neighbours, VisualCodes
from mammoth_jax.training.player import Batch, Models, Outcome

Drawing = Callable[[Batch, PRNGKeyArray, Models], Draws]
"""From a micro-batch, the step's key and all networks to what is drawn for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawByName:
    """Draws by the samples' names; the table for similarity noise is the network ``neighbours``."""

    config: JointObjectiveConfig
    codes: VisualCodes | None = None

    def __call__(self, batch: Batch, key: PRNGKeyArray, models: Models) -> Draws:
        """See :func:`mammoth_jax.objectives.joint_draws.draw`."""
        neighbours = models.get("neighbours")
        assert neighbours is None or isinstance(neighbours, Neighbours)
        return draw(self.config, batch, key, self.codes, neighbours)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointObjective:
    """The objective of the player ``name``, a :class:`Mammoth`.

    Its ``Player`` surveys with :func:`survey` and keeps the step's key for all micro-batches (:func:`same_key`).
    """

    config: JointObjectiveConfig
    drawing: Drawing
    name: str = "model"

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
        """See :class:`mammoth_jax.training.player.Objective`."""
        model = models[self.name]
        assert isinstance(model, Mammoth)
        forward = joint_forward(model, batch, self.drawing(batch, key, models), self.config)
        terms = joint_terms(forward, batch, model.config.backbone.decoder.gen_vocab_start_index)
        return Outcome(weighted_loss(terms, whole, self.config), terms, None, carried)


def same_key(key: PRNGKeyArray, index: Int[Array, ""]) -> PRNGKeyArray:
    """The step's key for every micro-batch: samples have names of their own."""
    return key


__all__ = ["DrawByName", "Drawing", "JointObjective", "same_key", "survey"]
