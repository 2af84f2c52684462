"""The shift and scale of latents that belong to a VAE's weights, from where those are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from checkpoint_convert.folder import read_json
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.origin import tokenizer_source
from mammoth_jax.training.runs import is_run, split_step
from mammoth_jax.training.tokenizer_evaluation import LATENTS


def with_measured_latents(config: MammothConfig, vae: Path | str) -> MammothConfig:
    """The configuration with the shift and scale of a VAE: what its run measured, or its folder's ``config.json`` says.

    A run of joint training stands for the VAE that it was trained with; where nobody says them, they stay.

    Raises:
      InputError: a run of joint training names no VAE, or a file is damaged.
    """
    source = tokenizer_source(vae, "vae")
    said = _of_run(split_step(source)[0]) if is_run(source) else _of_folder(Path(source))
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, **said))


def _of_run(run: Path) -> dict[str, Any]:
    file = run / LATENTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _of_folder(folder: Path) -> dict[str, Any]:
    """Of a model's folder, or of one of the VAE alone."""
    file = folder / "config.json"
    data = read_json(file) if file.is_file() else {}
    own = data.get("gen_vae_config") or data
    return {name: own[name] for name in ("shift_factor", "scaling_factor") if own.get(name) is not None}
