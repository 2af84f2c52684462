"""How well the model does on data that it is not trained on: the objective's own terms, and pictures to look at."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.core.rng import named_key
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Int, PRNGKeyArray
from mammoth_jax.data.packing.loader import JointDataConfig
from mammoth_jax.data.packing.workers import OpenPool
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.joint import visual_targets
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.objectives.ntp import IGNORED
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.joint_objective import DrawByName, JointObjective
from mammoth_jax.training.metrics import Numbers
from mammoth_jax.training.mismatch import with_other_targets, with_other_words
from mammoth_jax.training.player import Batch, Named, Player
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.step import Frozen
from mammoth_jax.training.work import Batches, HostBatch


class SamplePictures(Protocol):
    """Draws pictures with the weights of a step; packages above training know how."""

    def __call__(self, model: Mammoth, step: int, folder: Path) -> None:
        """Writes into ``folder``; ``model`` has the stage's parts, on the mesh."""
        ...


ChangePools = Callable[[Sequence[OpenPool]], Sequence[OpenPool]]
"""From the pools of a configuration to those that are read."""


class JointEvaluation:
    """The mean of every term over the first batches of the held-out data, the same batches and draws every time.

    Tokens are read without noise; with the moving average of the weights if one is kept.

    Args:
      config: of the stage.
      player: the model.
      frozen: the step's.
      mesh: devices.
      batches: opens data in batches of so many rows, from pools that a function may change.
      samples: draws pictures afterwards.

    Raises:
      InputError: the held-out data cannot be opened.
    """

    def __init__(
        self,
        config: JointTraining,
        player: Player,
        frozen: Frozen,
        mesh: Mesh,
        batches: Callable[[JointDataConfig, int, ChangePools], Batches],
        samples: SamplePictures | None = None,
    ):
        self._config, self._player, self._frozen, self._mesh = config, player, frozen, mesh
        self._batches, self._samples = batches, samples
        clean = dataclasses.replace(config.objective, noise=None)
        self._objective = JointObjective(config=clean, drawing=DrawByName(config=clean))
        self._terms = jax.jit(self._compute, out_shardings=NamedSharding(mesh, PartitionSpec()))
        if config.evaluation is not None:  # what is wrong with it is said now, not at the first look
            self._open(config.evaluation).close()

    def __call__(self, state: TrainState, step: int, pictures: Path) -> Numbers:
        """``ntp``, its parts by kind of token, and ``flow``; those that the data has targets of.

        With drawn pictures also ``visual_entropy``: what ``ntp_visual`` would be if codes were guessed by how often
        they occur in these very batches.  With controls also ``ntp_image_other_words``, ``ntp_visual_other_words``
        and ``flow_other_targets``.
        """
        own = state.ema.get("model", state.params["model"])
        if self._samples is not None:
            self._samples(self._assemble(own, self._frozen.rest["model"]), step, pictures)
        data, controls = self._config.evaluation, self._config.evaluation_controls
        if data is None:
            return {}
        numbers = self._measure(own, data)
        if "words" in controls and "ntp_image" in numbers:
            wrong = self._measure(own, data, change_pools=with_other_words)
            numbers |= {f"{n}_other_words": wrong[n] for n in ("ntp_image", "ntp_visual") if n in wrong}
        if "targets" in controls and "flow" in numbers:
            wrong = self._measure(own, data, change_batch=with_other_targets)
            numbers |= {"flow_other_targets": wrong["flow"]}
        return numbers

    def _measure(
        self,
        own: Named,
        data: JointDataConfig,
        change_pools: ChangePools = list,
        change_batch: Callable[[HostBatch], HostBatch] = dict,
    ) -> dict[str, float]:
        run, batches = self._config.run, self._open(data, change_pools)
        place = NamedSharding(self._mesh, PartitionSpec(current_rules().batch))
        sums: list[tuple[dict[str, LossSum], Array]] = []
        try:
            for number in range(self._config.evaluation_batches):
                made = change_batch(next(batches))
                batch = {name: jax.make_array_from_process_local_data(place, x) for name, x in made.items()}
                key = named_key(jax.random.key(run.seed), "evaluation", number)
                measured = self._terms(own, self._frozen.rest["model"], batch, key)
                sums.append(jax.device_get(measured))
        finally:
            batches.close()
        total = jax.tree.map(lambda *x: float(np.sum(x)), *[terms for terms, _ in sums])
        numbers = {name: term.total / term.weight for name, term in total.items() if term.weight}
        counts = np.sum([counts for _, counts in sums], axis=0)
        return numbers | ({"visual_entropy": entropy(counts)} if counts.any() else {})

    def _open(self, data: JointDataConfig, change_pools: ChangePools = list) -> Batches:
        run = self._config.run
        return self._batches(data, run.batch_size // run.accumulation, change_pools)

    def _compute(
        self, own: Named, rest: Named, batch: Batch, key: PRNGKeyArray
    ) -> tuple[dict[str, LossSum], Array]:
        """The terms, and how often each generation token is a visual token to predict."""
        models = {"model": self._assemble(own, rest)}
        step = jnp.int32(0)
        terms = self._objective(models, batch, None, None, key, step, {}).terms
        return terms, visual_counts(batch, self._config.model.backbone.decoder)

    def _assemble(self, own: dict[str, Array], rest: dict[str, Array]) -> Any:
        return self._player.assemble(own, rest, parse_dtype(self._config.dtype))


def visual_counts(batch: Batch, decoder: DecoderConfig) -> Int[Array, " v"]:
    """How often each generation token is a visual token that a packed batch predicts."""
    size = decoder.gen_vocab_size
    if "noise_cells" not in batch:
        return jnp.zeros(size, jnp.int32)
    labels = jnp.pad(batch["labels"][:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    counted = visual_targets(batch) & (labels != IGNORED)
    places = jnp.where(counted, labels - decoder.gen_vocab_start_index, size)  # beyond the end: dropped
    return jnp.zeros(size, jnp.int32).at[places.reshape(-1)].add(1, mode="drop")


def entropy(counts: np.ndarray) -> float:
    """Of the distribution that has these counts, in nats.

    As an estimate of the entropy of what was counted it is too low, by about (values seen - 1) / (2 counts).
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))
