"""What joint training reads beside its weights: the tokenizer of words, MammothTok and the VAE."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert.to_jax import side_files
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.data.shard_writer import fingerprint
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.training.checkpoint import complete_steps
from mammoth_jax.training.joint_config import FrozenFiles
from mammoth_jax.training.origin import tokenizer_paths
from mammoth_jax.training.runs import is_run, split_step
from mammoth_jax.training.tokenizer_kinds import KINDS
from mammoth_jax.training.tokenizer_weights import load_tokenizer

WORDS = "words"
"""The folder of a run with a copy of its tokenizer's files."""


def words_folder(files: FrozenFiles, init: str | None, run: Path | None) -> Path | None:
    """Where the tokenizer's files are: in the run if it has a checkpoint, as configured, or in what the weights are of.

    Raises:
      InputError: the configured folder is not there.
    """
    if files.words is not None and not Path(files.words).is_dir():
        raise InputError(f"frozen.words {files.words}: no such folder; name one with a tokenizer's files")
    own = None if run is None or not complete_steps(run) else run / WORDS
    places = [own, files.words and Path(files.words)]
    if init is not None:
        places.append(split_step(init)[0] / WORDS if is_run(init) else Path(init))
    return next((place for place in places if place and place.is_dir()), None)


def keep_words(folder: Path | None, run: Path) -> None:
    """Copies the tokenizer's files into the run, in place of an earlier start's; of several hosts the first does."""
    if jax.process_index() != 0:
        return
    partial = run / f"{WORDS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if folder is not None:
        partial.mkdir()
        for file in side_files(folder):
            shutil.copy(file, partial / Path(file).name)
    shutil.rmtree(run / WORDS, ignore_errors=True)
    if folder is not None:
        partial.rename(run / WORDS)


def read_words(config: MammothConfig, folder: Path | None) -> Tokenizer:
    """The tokenizer; without a folder one of bytes.

    Raises:
      InputError: the folder holds none.
    """
    backbone, codes = config.backbone, config.mammothtok.codebook_size
    family, start = backbone.tokenizer_family, backbone.decoder.gen_vocab_start_index
    if folder is not None:
        return Tokenizer.from_folder(folder, family=family, gen_vocab_start=start)
    return Tokenizer.of_bytes(family, backbone.image_token_id, start, codes)


def load_frozen(
    config: MammothConfig, files: FrozenFiles, init: str | None, mesh: Mesh
) -> tuple[MammothTok | None, VAE | None]:
    """MammothTok and the VAE, each ``None`` where nobody says where it is.

    Raises:
      InputError: a named folder does not hold it, or it is of other sizes.
    """
    found = {
        part: None if path is None else load_tokenizer(path, KINDS[part](config), mesh)
        for part, path in tokenizer_paths(files, init).items()
    }
    return found["mammothtok"], found["vae"]  # type: ignore[return-value]


def fingerprints(models: Mapping[str, nnx.Module | None]) -> dict[str, str]:
    """By role, what precomputed codes and latents remember of the models that made them."""
    return {
        role: fingerprint({name: np.asarray(p[...]) for name, p in named_parameters(model).items()})
        for role, model in models.items()
        if model is not None
    }


def need_codebook(mammothtok: MammothTok | None) -> MammothTok:
    """MammothTok, which similarity noise needs.

    Raises:
      InputError: nobody says where it is.
    """
    if mammothtok is None:
        raise InputError(
            "objective.noise: similar codes come from MammothTok's codebook; name it as frozen.mammothtok, or leave "
            "the noise out"
        )
    return mammothtok
