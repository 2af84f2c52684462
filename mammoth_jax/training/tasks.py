"""From a configuration to the work of its task."""

from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert.converted import is_converted
from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.part_folder import is_part, load_part
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract
from mammoth_jax.training.runs import is_run, load_weights
from mammoth_jax.training.tokenizer import tokenizer_work
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_kinds import KINDS, Tokenizer
from mammoth_jax.training.work import Work


def build_work(config: Any, mesh: Mesh, init: str | None = None) -> Work:
    """What ``train`` runs for a configuration.

    Args:
      config: of one of the tasks in ``config_file.TASKS``.
      mesh: devices.
      init: a model folder or a run to take the start weights from.

    Raises:
      InputError: see the task; or ``init`` does not hold its model.
    """
    if isinstance(config, TokenizerTraining):
        kind = KINDS[config.task](config.model)
        start = None if init is None else load_tokenizer(init, kind, mesh)
        return tokenizer_work(config, mesh, start)
    raise TypeError(f"no task for {type(config).__name__}")


def load_tokenizer(path: Path | str, kind: Tokenizer, mesh: Mesh) -> nnx.Module:
    """MammothTok or the VAE, float32, out of a run, a model folder or a folder of its own, of the same sizes.

    Raises:
      InputError: it is neither, or holds another model.
    """
    template = abstract(kind.build)
    if is_run(path):
        return load_weights(path, template, mesh)
    if not is_converted(path) and is_part(path, kind.config, kind.part):
        return load_part(path, template, kind.config, kind.part, mesh)
    folder = ModelFolder.open(Path(path), list(_PARTS[kind.part]))
    module = getattr(folder.load(mesh, "float32"), kind.part)
    if module is None:
        raise InputError(f"{path} holds no {kind.part}")
    return module


_PARTS = {"mammothtok": ("mammothtok_encoder", "mammothtok_codebook", "mammothtok_decoder"), "vae": ("vae",)}
