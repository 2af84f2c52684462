"""A trained tokenizer as the folder that its PyTorch original reads."""

import dataclasses
import json
from pathlib import Path

from checkpoint_convert.part_folder import save_part
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.runs import load_weights, read_config, split_step
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_evaluation import LATENTS
from mammoth_jax.training.tokenizer_kinds import KINDS


def export_run(run: Path | str, dst: Path | str, part: str | None) -> None:
    """Writes a run's weights (``RUN`` or ``RUN@STEP``) in the released layout; a VAE with its measured shift and scale.

    Raises:
      InputError: the run trains something else, has no such checkpoint, or ``dst`` exists.
    """
    config = read_config(run, TokenizerTraining)
    if part not in (None, config.task):
        raise InputError(f"{run} trains {config.task}, not {part}")
    template = abstract(KINDS[config.task](config.model).build)
    model = load_weights(run, template, single_device_mesh())
    save_part(model, with_measured_latents(config.model, split_step(run)[0]), config.task, dst)


def with_measured_latents(config: MammothConfig, run: Path) -> MammothConfig:
    """The configuration with the shift and scale that the run measured, if it did."""
    file = run / LATENTS
    if not file.is_file():
        return config
    measured = json.loads(file.read_text(encoding="utf-8"))
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, **measured))
