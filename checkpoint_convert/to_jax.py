"""``to-jax``: a released-format folder into a converted folder, and converted folders onto a mesh."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh

import mammoth_jax
from checkpoint_convert.converted import (
    MANIFEST,
    ConvertedFolder,
    ParamsWriter,
    Piece,
    chunk_bytes,
    pieces,
    region,
)
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.reported import reported
from checkpoint_convert.rules import Entry, Rule, Shape
from checkpoint_convert.safetensors_file import Spec
from checkpoint_convert.source import FolderSource, TensorSource
from checkpoint_convert.stream import fit, held_dtype, put
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.core.sharding import ShardingRules, named_sharding

M = TypeVar("M", bound=nnx.Module)

_COPIED = {".json", ".txt", ".tiktoken", ".jinja", ".model", ".py"}


def side_files(folder: Path) -> list[Path]:
    """Configurations, tokenizer and code beside the weights of a folder: what conversion copies unchanged."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and file.suffix in _COPIED
        and not file.name.endswith(".index.json")
        and file.name != MANIFEST
    ]


def to_jax(src: Path | str, dst: Path | str) -> frozenset[str]:
    """Converts a released-format folder; returns the parts that it holds.

    Raises:
      InputError: the checkpoint does not fit the model or cannot be read, or ``dst`` exists or cannot be
        written.
    """
    from checkpoint_convert.folder import abstract_model, read_config
    from checkpoint_convert.model import model_rules

    src = Path(src)
    source = FolderSource(src)
    config = read_config(src, source)
    model = abstract_model(config, source)
    with new_folder(dst) as folder:
        write_converted(folder, model, model_rules(config), source)
        for file in side_files(src):
            shutil.copyfile(file, folder / file.name)
    return model.parts


def write_converted(folder: Path, module: nnx.Module, rules: Iterable[Rule], source: TensorSource) -> None:
    """Writes ``params/`` and the manifest into an empty folder, piece by piece."""
    groups, parameters = fit(module, rules, source)
    specs = {
        name: Spec(tuple(parameters[name].shape), held_dtype(group, source)) for name, group in groups.items()
    }
    limit = chunk_bytes(specs)
    writer = ParamsWriter(folder, limit)
    for name, group in reported(groups.items(), len(groups), "to-jax"):
        for piece, array in _read_pieces(source, group, specs[name], limit):
            writer.add(name, piece, array)
    writer.close()
    manifest = {
        "tool": f"mammoth_jax {mammoth_jax.__version__}",
        "arrays": {
            name: {
                **_describe(specs[name]),
                "sources": {e.source: _describe(source.specs[e.source]) for e in group},
            }
            for name, group in groups.items()
        },
        "chunks": writer.chunks,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def _describe(spec: Spec) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": str(spec.dtype)}


def _read_pieces(
    source: TensorSource, group: Sequence[Entry], spec: Spec, limit: int
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Pieces of one array; at most one released tensor and one piece are in memory."""
    layer, tensor = -1, np.empty(0)

    def read(index: int, shape: Shape) -> np.ndarray:
        nonlocal layer, tensor
        if layer != index:
            tensor = np.empty(0)
            tensor, layer = group[index].transform.forward(source.read(group[index].source), shape), index
        return tensor

    for piece in pieces(spec.shape, spec.dtype.itemsize, limit):
        if group[0].layer is None:
            yield piece, read(0, spec.shape)[region(piece)].astype(spec.dtype, copy=False)
            continue
        first, last = piece[0] if piece else (0, spec.shape[0])
        inner = region(piece[1:])
        layers = [read(i, spec.shape[1:])[inner] for i in range(first, last)]
        yield piece, np.stack([x.astype(spec.dtype, copy=False) for x in layers])


def load_converted(
    module: M, path: Path | str, mesh: Mesh, dtype: Any = None, sharding: ShardingRules | None = None
) -> M:
    """The (abstract) module with a converted folder's arrays, each in its target sharding on the mesh.

    Arrays that the module lacks are not read.  ``dtype`` casts (None keeps the folder's).

    Raises:
      InputError: one error that lists the arrays that do not fit, or a damaged chunk.
    """
    folder = ConvertedFolder.open(path)
    parameters = named_parameters(module)
    check_arrays(parameters, folder)
    values: dict[str, Any] = {}
    for name, array in reported(folder.arrays(parameters), len(parameters), "loading"):
        param = parameters[name]
        cast = array if dtype is None else array.astype(dtype, copy=False)
        values[name] = put(cast, named_sharding(mesh, param.axes, param.shape, sharding))
        del array, cast
    return with_parameters(module, values)


def check_arrays(parameters: Mapping[str, nnx.Param], folder: ConvertedFolder) -> None:
    """Checks that a converted folder holds every parameter in its shape.

    Raises:
      InputError: one error that lists all that do not fit.
    """
    wrong = [f"missing: {name}" for name in parameters if name not in folder.targets]
    for name, spec in folder.targets.items():
        if name in parameters and tuple(parameters[name].shape) != spec.shape:
            wrong.append(f"misshapen: {name} is {list(spec.shape)}, expected {list(parameters[name].shape)}")
    if wrong:
        raise InputError(
            f"{folder.path}: {len(wrong)} arrays do not fit the model; convert again with to-jax:\n  "
            + "\n  ".join(wrong)
        )
