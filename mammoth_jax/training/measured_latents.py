"""The shift and scale of latents that a VAE's run measured."""

import dataclasses
import json
from pathlib import Path

from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.tokenizer_evaluation import LATENTS


def with_measured_latents(config: MammothConfig, run: Path) -> MammothConfig:
    """The configuration with the shift and scale that the run measured, if it did."""
    file = run / LATENTS
    if not file.is_file():
        return config
    measured = json.loads(file.read_text(encoding="utf-8"))
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, **measured))
