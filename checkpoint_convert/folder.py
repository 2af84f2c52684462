"""Model folders of either kind: what they hold, and their weights on a mesh."""

import dataclasses
import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from checkpoint_convert.converted import ConvertedFolder, is_converted
from checkpoint_convert.model import model_rules
from checkpoint_convert.released_config import config_from_released
from checkpoint_convert.rules import expand, present_parts
from checkpoint_convert.source import FolderSource, TensorSource, shapes
from checkpoint_convert.stream import load_onto
from checkpoint_convert.to_jax import load_converted
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract
from mammoth_jax.core.sharding import ShardingRules
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      InputError: the file is missing or is not a JSON object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}); copy it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: expected a JSON object, got {type(data).__name__}")
    return data


def read_config(folder: Path, source: TensorSource) -> MammothConfig:
    """The model's configuration from a folder's ``config.json`` and its tensors' shapes.

    Raises:
      InputError: the configuration is missing or is of another model.
    """
    return config_from_released(read_json(folder / "config.json"), shapes(source))


def abstract_model(
    config: MammothConfig, source: TensorSource, parts: Collection[str] | None = None
) -> Mammoth:
    """The model with shapes in place of arrays: the source's parts, or those of them that are in ``parts``."""
    present = frozenset(present_parts(expand(model_rules(config)), source.specs))
    return _abstract(config, present if parts is None else present & frozenset(parts))


@functools.lru_cache(maxsize=8)
def _abstract(config: MammothConfig, parts: frozenset[str]) -> Mammoth:
    return abstract(lambda: Mammoth(config, parts=parts))


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A released-format or converted folder, opened: its configuration and the model's shapes."""

    path: Path
    config: MammothConfig
    model: Mammoth
    """With shapes in place of arrays; parts that the folder lacks are None."""
    source: FolderSource | None
    """The released tensors; None for a converted folder."""

    @classmethod
    def open(cls, path: Path | str, parts: Collection[str] | None = None) -> "ModelFolder":
        """Reads configuration and headers, no weights; ``parts`` limits what will be loaded.

        Raises:
          InputError: not a model folder, or a corrupt one.
        """
        path = Path(path)
        if not is_converted(path):
            source = FolderSource(path)
            config = read_config(path, source)
            return cls(path, config, abstract_model(config, source, parts), source)
        folder = ConvertedFolder.open(path)
        config = config_from_released(
            read_json(path / "config.json"), {name: spec.shape for name, spec in folder.released.items()}
        )
        names = folder.released
        present = frozenset(present_parts(expand(model_rules(config)), names))
        return cls(
            path, config, _abstract(config, present if parts is None else present & frozenset(parts)), None
        )

    def load(self, mesh: Mesh, dtype: Any = None, sharding: ShardingRules | None = None) -> Mammoth:
        """The weights, each array in its target sharding; ``dtype`` casts (None keeps the folder's).

        Raises:
          InputError: tensors that do not fit the model, or that cannot be read.
        """
        if self.source is None:
            return load_converted(self.model, self.path, mesh, dtype, sharding)
        return load_onto(self.model, model_rules(self.config), self.source, mesh, dtype, sharding)
