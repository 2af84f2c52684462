"""Safetensors files: headers and single tensors read by ``pread``, shards written tensor by tensor.

Why not the ``safetensors`` package: it maps the file, and mapped pages count as this process's memory, which
conversion bounds; its ``save_file`` wants all tensors of a shard at once; and its errors name neither file
nor fix. The format is small: an 8-byte little-endian header length, a JSON header ``{name: {dtype, shape,
data_offsets}}``, then the tensors' bytes without holes.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from checkpoint_convert.rules import Shape
from mammoth_jax.core.errors import InputError

INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_SLAB = 16 * 2**20  # bytes written at once, so that a transposed view is never copied whole

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: ``offset`` bytes from the start of ``file``."""

    file: Path
    shape: Shape
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Header:
    """The tensors of one file in file order, and names that the header holds twice."""

    tensors: Mapping[str, TensorInfo]
    doubled: tuple[str, ...]


def read_header(file: Path) -> Header:
    """Reads and verifies a file's header; no tensor is read.

    Raises:
      InputError: the file is missing, truncated or not safetensors, or has an unknown dtype; the message
        names it.
    """
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise InputError(
                    f"{file}: not a whole safetensors file ({size} bytes, header of {length}); copy it again"
                )
            text = stream.read(length)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    doubled: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        doubled.extend(
            sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        )
        return dict(items)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _info(file, name, entry, 8 + length) for name, entry in entries.items()}
    except InputError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: the safetensors header is corrupt ({error}); copy the file again"
        ) from error
    for name, info in tensors.items():
        if info.offset + info.nbytes > size:
            raise InputError(
                f"{file} is truncated: {name} ends at byte {info.offset + info.nbytes} of {size}; copy it again"
            )
    return Header(tensors, tuple(doubled))


def _info(file: Path, name: str, entry: Mapping[str, Any], start: int) -> TensorInfo:
    if entry["dtype"] not in DTYPES:
        raise InputError(
            f"{file}: {name} has the unknown dtype {entry['dtype']!r}; known: {', '.join(DTYPES)}"
        )
    first, last = map(int, entry["data_offsets"])
    info = TensorInfo(file, tuple(map(int, entry["shape"])), DTYPES[entry["dtype"]], start + first)
    if first < 0 or min(info.shape, default=0) < 0 or last - first != info.nbytes:
        raise InputError(
            f"{file}: the safetensors header is corrupt ({name} of shape {list(info.shape)} at {first}:{last}); "
            "copy the file again"
        )
    return info


def read_tensor(info: TensorInfo) -> np.ndarray:
    """One tensor, in memory of its own.

    Raises:
      InputError: the file cannot be read to the tensor's end.
    """
    raw = np.empty(info.nbytes, np.uint8)
    view, done = raw.data, 0
    try:
        descriptor = os.open(info.file, os.O_RDONLY)
        try:
            while done < info.nbytes:
                count = os.preadv(descriptor, [view[done : done + 2**30]], info.offset + done)
                if count == 0:
                    raise InputError(f"{info.file} is truncated at byte {info.offset + done}; copy it again")
                done += count
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot read {info.file}: {error.strerror or error}") from error
    return raw.view(info.dtype).reshape(info.shape)


def checkpoint_files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The folder's safetensors files, and the index's map from tensor to file name (None without an index).

    Exactly the files that the index names; without an index every ``*.safetensors``, sorted.

    Raises:
      InputError: no such folder, no safetensors in it, or an index that is corrupt or names a missing file.
    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder {folder}; give a folder with *.safetensors files")
    for index in [folder / INDEX, *sorted(folder.glob("*.safetensors.index.json"))]:
        if index.is_file():
            break
    else:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError(f"{folder} holds no *.safetensors files; expected a checkpoint folder")
        return files, None
    try:
        weight_map = {
            str(name): str(file)
            for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        }
    except OSError as error:
        raise InputError(f"cannot read {index}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index} is corrupt ({error!r}); copy it again, or remove it if the folder has one shard"
        ) from error
    files = [folder / name for name in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{index} names files that are not there: {', '.join(missing)}; copy the missing shards into {folder}"
        )
    return files, weight_map


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and dtype of a tensor that will be written."""

    shape: Shape
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def plan_shards(specs: Mapping[str, Spec], max_bytes: int) -> list[dict[str, Spec]]:
    """Tensors in the given order, cut into shards of at most ``max_bytes`` (a larger tensor is alone in one)."""
    shards: list[dict[str, Spec]] = [{}]
    size = 0
    for name, spec in specs.items():
        if shards[-1] and size + spec.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = spec
        size += spec.nbytes
    return shards


class FileWriter:
    """One safetensors file whose tensors arrive in any order; under a temporary name until ``close``."""

    def __init__(self, file: Path, specs: Mapping[str, Spec]):
        self.file = file
        self._temporary = file.with_name(file.name + ".incomplete")
        # Wider dtypes first: readers view tensors in place and want them aligned; the format allows no holes.
        names = sorted(specs, key=lambda name: -specs[name].dtype.itemsize)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._offsets: dict[str, int] = {}
        self._specs = dict(specs)
        end = 0
        for name in names:
            spec = specs[name]
            header[name] = {
                "dtype": _NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [end, end + spec.nbytes],
            }
            self._offsets[name] = end
            end += spec.nbytes
        text = json.dumps(header, ensure_ascii=False).encode("utf-8")
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        _write_all(self._descriptor, len(text).to_bytes(8, "little") + text, 0)

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes one tensor; shape and dtype must be those announced."""
        spec = self._specs.pop(name)
        if tuple(array.shape) != spec.shape or array.dtype != spec.dtype:
            raise ValueError(f"{name}: announced {spec}, got {array.shape} {array.dtype}")
        offset = self._start + self._offsets[name]
        rows = array if array.ndim > 1 else array.reshape(1, -1)
        step = max(1, _SLAB // max(1, rows[:1].nbytes))
        for first in range(0, len(rows), step):
            slab = np.ascontiguousarray(rows[first : first + step]).reshape(-1).view(np.uint8)
            _write_all(self._descriptor, slab, offset)
            offset += slab.nbytes

    def close(self) -> None:
        """Gives the file its name; every announced tensor must have been written."""
        if self._specs:
            raise ValueError(f"{self.file}: not written: {sorted(self._specs)[:5]}")
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        os.replace(self._temporary, self.file)


def _write_all(descriptor: int, data: Any, offset: int) -> None:
    view, done = memoryview(data).cast("B"), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + 2**30], offset + done)


class ShardedWriter:
    """``model-0000i-of-0000n.safetensors`` with an index, or one file ``stem.safetensors`` without.

    Tensors should arrive roughly in the announced order: a shard is open from its first tensor to its last.
    """

    def __init__(
        self, folder: Path, specs: Mapping[str, Spec], max_bytes: int | None = 5 * 10**9, stem: str = "model"
    ):
        """``max_bytes`` is the size of a shard; None writes one file without an index."""
        self._folder = folder
        self._indexed = max_bytes is not None
        self._shards = plan_shards(specs, max_bytes) if max_bytes is not None else [dict(specs)]
        n = len(self._shards)
        self._names = (
            [f"{stem}-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
            if self._indexed
            else [f"{stem}.safetensors"]
        )
        self._shard_of = {tensor: i for i, shard in enumerate(self._shards) for tensor in shard}
        self._open: dict[int, FileWriter] = {}
        self._left = [len(shard) for shard in self._shards]

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes one tensor into its shard; a shard is closed once it is complete."""
        i = self._shard_of[name]
        if i not in self._open:
            self._open[i] = FileWriter(self._folder / self._names[i], self._shards[i])
        self._open[i].write(name, array)
        self._left[i] -= 1
        if not self._left[i]:
            self._open.pop(i).close()

    def close(self) -> None:
        """Writes the index, once every announced tensor is there."""
        if any(self._left):
            raise ValueError(f"{self._folder}: {sum(self._left)} announced tensors were not written")
        if self._indexed:
            total = sum(spec.nbytes for shard in self._shards for spec in shard.values())
            weight_map = {name: self._names[i] for name, i in sorted(self._shard_of.items())}
            text = json.dumps(
                {"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, ensure_ascii=False
            )
            (self._folder / INDEX).write_text(text + "\n", encoding="utf-8")
