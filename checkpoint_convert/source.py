"""Where released-name tensors come from: a checkpoint folder, one file, or memory; read one at a time."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from checkpoint_convert.rules import Shape
from checkpoint_convert.safetensors_file import Spec, TensorInfo, checkpoint_files, read_header, read_tensor
from mammoth_jax.core.errors import InputError

WEIGHT_DTYPES = tuple(np.dtype(t) for t in (np.float32, ml_dtypes.bfloat16, np.float16))


class TensorSource(Protocol):
    """Named tensors whose shapes are known before any is read."""

    @property
    def where(self) -> str:
        """What to call the source in an error."""
        ...

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Shape and dtype of every tensor."""
        ...

    @property
    def doubled(self) -> tuple[str, ...]:
        """Names that the source holds more than once."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor; the caller owns the memory or must not write to it."""
        ...


def shapes(source: TensorSource) -> dict[str, Shape]:
    """Shape of every tensor."""
    return {name: spec.shape for name, spec in source.specs.items()}


def problems(source: TensorSource) -> list[str]:
    """What is wrong with a source whatever the model: doubled names, and tensors that are not weights."""
    known = ", ".join(str(dtype) for dtype in WEIGHT_DTYPES)
    return [f"doubled: {name}" for name in source.doubled] + [
        f"dtype: {name} is {spec.dtype}, expected one of {known}"
        for name, spec in source.specs.items()
        if spec.dtype not in WEIGHT_DTYPES
    ]


@dataclasses.dataclass(frozen=True)
class DictSource:
    """Tensors that are in memory."""

    tensors: Mapping[str, np.ndarray]
    where: str = "the given tensors"
    doubled: tuple[str, ...] = ()

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Shape and dtype of every tensor."""
        return {name: Spec(tuple(x.shape), x.dtype) for name, x in self.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """The tensor itself."""
        return self.tensors[name]


class FolderSource:
    """The safetensors files of a checkpoint folder (those that its index names), or a single such file.

    Raises:
      InputError: a missing, truncated or corrupt file, or an index that names a tensor that its file lacks.
    """

    def __init__(self, path: Path | str):
        path = Path(path)
        files, weight_map = ([path], None) if path.is_file() else checkpoint_files(path)
        self._infos: dict[str, TensorInfo] = {}
        doubled: set[str] = set()
        for file in files:
            header = read_header(file)
            doubled |= {*header.doubled, *(set(header.tensors) & set(self._infos))}
            self._infos |= header.tensors
        wrong = [
            f"{name} ({file})"
            for name, file in (weight_map or {}).items()
            if name not in doubled
            and (name not in self._infos or self._infos[name].file.name != Path(file).name)
        ]
        if wrong:
            raise InputError(
                f"{path}: the index names tensors that are not in their files: {', '.join(wrong)}; "
                "copy the index and those files again from one source"
            )
        self._where = str(path)
        self._doubled = tuple(sorted(doubled))
        self._specs = {name: Spec(info.shape, info.dtype) for name, info in self._infos.items()}

    @property
    def where(self) -> str:
        """The path."""
        return self._where

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Shape and dtype of every tensor."""
        return self._specs

    @property
    def doubled(self) -> tuple[str, ...]:
        """Names that several files, or one file twice, hold."""
        return self._doubled

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor into memory of its own."""
        return read_tensor(self._infos[name])
