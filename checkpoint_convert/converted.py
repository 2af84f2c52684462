"""The converted folder: our arrays as Orbax checkpoints, cut into pieces so that no step needs much memory.

``params/00000``, ``params/00001``, ... are Orbax checkpoints of a few pieces each; a piece is a whole array,
a run of its layers (or rows), or a run of rows of one layer.  ``conversion.json`` lists the pieces in order,
and for every array its shape, dtype and the released tensors (with their dtypes) that it holds.  Saving or
restoring one Orbax checkpoint takes about four times its size of host memory, so a chunk is at most an eighth
of the largest array.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_convert.rules import Shape
from checkpoint_convert.safetensors_file import DTYPES, Spec
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import disk_reason

MANIFEST = "conversion.json"
PARAMS = "params"
_SMALLEST_CHUNK, _LARGEST_CHUNK = 4 * 2**20, 128 * 2**20  # bytes
_DTYPES = {str(dtype): dtype for dtype in DTYPES.values()}

Piece = tuple[tuple[int, int], ...]
"""Ranges of the leading dimensions; ``()`` is the whole array."""


def chunk_bytes(specs: Mapping[str, Spec]) -> int:
    """Size of a chunk for arrays of these sizes."""
    largest = max((spec.nbytes for spec in specs.values()), default=0)
    return min(max(largest // 8, _SMALLEST_CHUNK), _LARGEST_CHUNK)


def pieces(shape: Shape, itemsize: int, limit: int) -> list[Piece]:
    """Cuts an array into pieces of at most ``limit`` bytes, in order, by its leading dimensions.

    Only a row of the last dimension is never cut.
    """
    if len(shape) < 2 or math.prod(shape) * itemsize <= limit:
        return [()]
    row = math.prod(shape[1:]) * itemsize
    if row > limit and len(shape) > 2:
        return [((i, i + 1), *rest) for i in range(shape[0]) for rest in pieces(shape[1:], itemsize, limit)]
    step = max(1, limit // row)
    return [((i, min(i + step, shape[0])),) for i in range(0, shape[0], step)]


def region(piece: Piece) -> tuple[slice, ...]:
    """The piece as an index of its array."""
    return tuple(slice(first, last) for first, last in piece)


def _return_freed_memory() -> None:
    """Hands freed blocks back to the system, where the C library can.

    Orbax reads and writes in many threads; glibc would keep the blocks that each of them freed, several chunks in all.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _key(name: str, piece: Piece) -> str:
    return name + "".join(f"@{first}-{last}" for first, last in piece)


class ParamsWriter:
    """Writes pieces in the order in which they come, a chunk at a time."""

    def __init__(self, folder: Path, limit: int):
        import orbax.checkpoint as ocp

        self._checkpointer = ocp.PyTreeCheckpointer()
        self._params = (folder / PARAMS).resolve()
        self._params.mkdir()
        self._limit = limit
        self._pending: dict[str, np.ndarray] = {}
        self._listed: list[list[Any]] = []
        self.chunks: list[list[list[Any]]] = []
        """``[[name, piece], ...]`` of every chunk written."""

    def add(self, name: str, piece: Piece, array: np.ndarray) -> None:
        """Adds a piece; the writer keeps a copy until its chunk is written.

        Raises:
          OSError: a chunk could not be written.
        """
        if self._pending and sum(x.nbytes for x in self._pending.values()) + array.nbytes > self._limit:
            self._flush()
        self._pending[_key(name, piece)] = np.array(array, order="C")
        self._listed.append([name, [list(bounds) for bounds in piece]])

    def _flush(self) -> None:
        import jax

        try:
            self._checkpointer.save(self._params / f"{len(self.chunks):05d}", self._pending)
        except (ValueError, jax.errors.JaxRuntimeError) as error:  # TensorStore's, whatever the disk says
            raise OSError(disk_reason(error)) from error
        self.chunks.append(self._listed)
        self._pending, self._listed = {}, []
        _return_freed_memory()

    def close(self) -> None:
        """Writes what is left.

        Raises:
          OSError: it could not be written.
        """
        if self._pending:
            self._flush()
        self._checkpointer.close()


@dataclasses.dataclass(frozen=True)
class ConvertedFolder:
    """A folder that ``to-jax`` wrote."""

    path: Path
    targets: Mapping[str, Spec]
    """Our arrays, in the order in which they are stored."""
    sources: Mapping[str, Mapping[str, Spec]]
    """Released names, shapes and dtypes in each of our arrays, in layer order."""
    chunks: tuple[tuple[tuple[str, Piece], ...], ...]

    @classmethod
    def open(cls, path: Path | str) -> "ConvertedFolder":
        """Reads the manifest.

        Raises:
          InputError: not a converted folder, or a corrupt manifest.
        """
        path = Path(path)
        try:
            data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            targets = {
                name: Spec(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
                for name, entry in data["arrays"].items()
            }
            sources = {
                name: {
                    source: Spec(tuple(s["shape"]), _DTYPES[s["dtype"]])
                    for source, s in entry["sources"].items()
                }
                for name, entry in data["arrays"].items()
            }
            chunks = tuple(
                tuple((name, tuple((int(a), int(b)) for a, b in piece)) for name, piece in chunk)
                for chunk in data["chunks"]
            )
        except OSError as error:
            raise InputError(
                f"{path} is not a converted folder ({MANIFEST}: {error.strerror or error})"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path / MANIFEST} is corrupt ({error!r}); convert again with to-jax"
            ) from error
        return cls(path, targets, sources, chunks)

    @property
    def released(self) -> dict[str, Spec]:
        """The released tensors that the folder was made from."""
        return {name: spec for group in self.sources.values() for name, spec in group.items()}

    def arrays(self, names: Container[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The named arrays, whole, one at a time in stored order; nothing else is read.

        Raises:
          InputError: a chunk is missing or damaged.
        """
        import jax
        import orbax.checkpoint as ocp

        checkpointer = ocp.PyTreeCheckpointer()
        array, name, left = np.empty(0), "", 0
        for number, chunk in enumerate(self.chunks):
            file = (self.path / PARAMS / f"{number:05d}").resolve()
            wanted = [(n, piece) for n, piece in chunk if n in names]
            if not wanted:
                continue
            args = {_key(n, piece): ocp.RestoreArgs(restore_type=np.ndarray) for n, piece in chunk}
            try:
                restored: dict[str, np.ndarray] = checkpointer.restore(file, restore_args=args)
            except (OSError, ValueError, KeyError, jax.errors.JaxRuntimeError) as error:
                text = " ".join(str(error).split())[:200]
                raise InputError(f"{file} cannot be read ({text}); convert again with to-jax") from error
            for piece_name, piece in wanted:
                value = restored.pop(_key(piece_name, piece))
                if not left:
                    name, spec = piece_name, self.targets[piece_name]
                    array = np.empty(spec.shape, spec.dtype) if piece else value
                    left = array.size
                if piece:
                    array[region(piece)] = value
                left -= value.size
                del value
                if not left:
                    yield name, array
                    array = np.empty(0)
            _return_freed_memory()
        checkpointer.close()


def is_converted(path: Path | str) -> bool:
    """Whether a folder is a converted one."""
    return (Path(path) / MANIFEST).is_file()
