"""The model out of a run of joint training: its weights, and the tokenizers that it was trained with."""

import dataclasses
import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, cast, named_parameters, with_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.training.config_file import run_config
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.joint_files import WORDS, read_words
from mammoth_jax.training.origin import read_origin, tokenizer_paths
from mammoth_jax.training.runs import abstract_arrays, read_arrays, split_step, trained_names
from mammoth_jax.training.start_weights import parts_of
from mammoth_jax.training.tokenizer_kinds import KINDS
from mammoth_jax.training.tokenizer_weights import load_tokenizer

_MAMMOTHTOK = {
    "encoder": "mammothtok_encoder",
    "quantizer": "mammothtok_codebook",
    "decoder": "mammothtok_decoder",
}


@dataclasses.dataclass(frozen=True)
class JointRun:
    """``RUN`` or ``RUN@STEP`` of joint training, opened: what it was told.

    Weights are its moving average where it keeps one; adapters are merged.
    """

    path: str
    config: JointTraining

    @classmethod
    def open(cls, path: Path | str) -> "JointRun":
        """Reads the configuration.

        Raises:
          InputError: it is no run, or one of a tokenizer.
        """
        config = run_config(path)
        if not isinstance(config, JointTraining):
            raise InputError(
                f"{path} is a run that trains {config.task} alone; give a run of the model (task text, understanding "
                "or joint), or a model folder"
            )
        return cls(str(path), config)

    @property
    def folder(self) -> Path:
        """The run's, without the step."""
        return split_step(self.path)[0]

    @property
    def words(self) -> Path | None:
        """Where its tokenizer's files are; None where words are bytes."""
        folder = self.folder / WORDS
        return folder if folder.is_dir() else None

    def tokenizer_of_words(self) -> Tokenizer:
        """The tokenizer that it was trained with."""
        return read_words(self.config.model, self.words)

    @functools.cached_property
    def parts(self) -> frozenset[str]:
        """The parts of the model whose weights the run itself holds.

        Raises:
          InputError: there is no such checkpoint.
        """
        return parts_of(self.path)

    @functools.cached_property
    def trained(self) -> frozenset[str]:
        """The parameters that it changes: those that it trains, or the kernels that its adapters change."""
        return trained_names(self.path)

    def tokenizer_paths(self) -> dict[str, str | None]:
        """Where ``mammothtok`` and ``vae`` are, as training read them; None where nobody said."""
        return tokenizer_paths(self.config.frozen, read_origin(self.path).init)

    def tokenizer(self, part: str, mesh: Mesh) -> nnx.Module | None:
        """``mammothtok`` or ``vae``, float32; None where the run does not say where it is.

        Raises:
          InputError: it is not there any more, or is of other sizes.
        """
        path = self.tokenizer_paths()[part]
        return None if path is None else load_tokenizer(path, KINDS[part](self.config.model), mesh)

    def template(self, parts: Collection[str] | None = None) -> Mammoth:
        """The model that the run holds, or those of its parts that are named, as shapes."""
        held = self.parts if parts is None else self.parts & frozenset(parts)
        return abstract(lambda: Mammoth(self.config.model, parts=held))

    def load(self, mesh: Mesh, dtype: Any = None, parts: Collection[str] | None = None) -> Mammoth:
        """The model on a mesh with the tokenizers that the run names, each array directly in its shards.

        Args:
          mesh: devices.
          dtype: of all weights; None is float32.
          parts: what is loaded of what there is; None is everything.

        Raises:
          InputError: a checkpoint or a tokenizer is not there, or does not fit the run's model.
        """
        dtype = "float32" if dtype is None else dtype
        template = self.template(parts)
        values: dict[str, Any] = dict(read_arrays(self.path, abstract_arrays(template, mesh, dtype)))
        held = set(template.parts)
        for role, names in (("mammothtok", set(_MAMMOTHTOK.values())), ("vae", {"vae"})):
            if parts is not None and not names & set(parts):
                continue
            module = self.tokenizer(role, mesh)
            if module is None:
                continue
            values |= {f"{role}.{n}": p[...] for n, p in named_parameters(cast(module, dtype)).items()}
            held |= _held(role, module)
        whole = abstract(lambda: Mammoth(self.config.model, parts=frozenset(held)))
        wanted = {name: tuple(p.shape) for name, p in named_parameters(whole).items()}
        found = {name: tuple(x.shape) for name, x in values.items()}
        if found != wanted:
            differ = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
            raise InputError(
                f"{self.path} does not hold the model of its config.yaml: {len(differ)} arrays differ, e.g. "
                f"{differ[0]} is {found.get(differ[0], 'absent')}, expected {wanted.get(differ[0], 'absent')}; copy "
                "the run again, and what its frozen.* name"
            )
        return with_parameters(whole, values)


def _held(role: str, module: nnx.Module) -> set[str]:
    """The parts of the model that a tokenizer has."""
    if role == "vae":
        return {"vae"}
    return {part for name, part in _MAMMOTHTOK.items() if getattr(module, name) is not None}
