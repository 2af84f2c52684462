"""MammothTok or the VAE from wherever it is: a run, a model folder, or a folder of its own."""

from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert.converted import is_converted
from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.part_folder import is_part, load_part
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract
from mammoth_jax.training.origin import tokenizer_source
from mammoth_jax.training.runs import is_run, load_weights
from mammoth_jax.training.tokenizer_kinds import Tokenizer


def load_tokenizer(path: Path | str, kind: Tokenizer, mesh: Mesh) -> nnx.Module:
    """MammothTok or the VAE, float32, out of a run, a model folder or a folder of its own, of the same sizes.

    A run of joint training stands for the tokenizer that it was trained with.

    Raises:
      InputError: it is neither, or holds another model.
    """
    template, path = abstract(kind.build), tokenizer_source(path, kind.part)
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
