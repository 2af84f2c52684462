"""From a configuration to the work of its task."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

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
      init: a model folder or a run to take the start weights from.
      run: the run's folder, which may not be there yet.
      samples: draws pictures with the weights of a stage.

    Raises:
      InputError: see the task; or ``init`` does not hold its model.
    """
    if isinstance(config, TokenizerTraining):
        kind = KINDS[config.task](config.model)
        start = None if init is None else load_tokenizer(init, kind, mesh)
        return tokenizer_work(config, mesh, start)
    if isinstance(config, JointTraining):
        return joint_work(config, mesh, init, run, samples)
    raise TypeError(f"no task for {type(config).__name__}")
