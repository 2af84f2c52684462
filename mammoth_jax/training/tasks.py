"""From a configuration to the work of its task."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mammoth_jax.training.adversary import load_adversary
from mammoth_jax.training.checkpoint import complete_steps
from mammoth_jax.training.joint import joint_work
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.joint_evaluation import SamplePictures
from mammoth_jax.training.tokenizer import tokenizer_work
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_kinds import KINDS
from mammoth_jax.training.tokenizer_weights import load_tokenizer
from mammoth_jax.training.work import Work


def build_work(
    config: Any,
    mesh: Mesh,
    init: str | None = None,
    run: Path | None = None,
    samples: SamplePictures | None = None,
) -> Work:
    """What ``train`` runs for a configuration.

    Args:
      config: of one of the tasks in ``config_file.TASKS``.
      mesh: devices.
      init: a model folder or a run to take the start weights from; those of a run that goes on are its own.
      run: the run's folder, which may not be there yet.
      samples: draws pictures with the weights of a stage.

    Raises:
      InputError: see the task; or ``init`` does not hold its model.
    """
    if isinstance(config, TokenizerTraining):
        kind = KINDS[config.task](config.model)
        goes_on = run is not None and complete_steps(run)
        if init is None or goes_on:
            return tokenizer_work(config, mesh)
        start, own = load_tokenizer(init, kind, mesh), config.discriminator
        adversary = None if own is None else load_adversary(init, kind.part, own.network, mesh)
        return tokenizer_work(config, mesh, start, adversary)
    if isinstance(config, JointTraining):
        return joint_work(config, mesh, init, run, samples)
    raise TypeError(f"no task for {type(config).__name__}")
