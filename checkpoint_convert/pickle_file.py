"""``.pth`` files as a source of tensors, read one at a time, without torch and without running the pickle.

Two layouts: a zip archive (``torch.save`` since 1.6) with the pickle ``NAME/data.pkl`` and one uncompressed member
``NAME/data/KEY`` a storage; and the older stream of pickles (a magic number, a version, facts about the machine,
the object, the keys of its storages) followed by each storage as its number of elements and its bytes.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from checkpoint_convert.restricted_pickle import Storage, StoredTensor, read_pickle
from checkpoint_convert.safetensors_file import Spec, TensorInfo, read_tensor
from mammoth_jax.core.errors import InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_PICKLE = 100_000_000  # bytes: names and places of tensors, no tensor
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What ``zipfile`` raises on damaged archives."""
_ZIP, _PICKLE, _TAR = b"PK\x03\x04", b"\x80", b"ustar"


def is_pickle_file(file: Path) -> bool:
    """Whether the file begins as one that ``torch.save`` wrote, in whatever layout.

    Raises:
      InputError: it cannot be read.
    """
    start = _start(file)
    if start[8:9] == b"{":  # safetensors: a header's length may begin like a pickle
        return False
    return start.startswith((_ZIP, _PICKLE)) or _is_tar(start)


class PickleFile:
    """The tensors of one file that ``torch.save`` wrote from a dictionary of tensors.

    Raises:
      InputError: no such file, one that is cut short, corrupt or in another layout, or one that holds or asks for
        more than tensors.
    """

    def __init__(self, file: Path | str):
        self._file = Path(file)
        start = _start(self._file)
        self._zip = start.startswith(_ZIP)
        try:
            if self._zip:
                tensors, self._places = self._open_zip()
            elif start.startswith(_PICKLE):
                tensors, self._places = self._open_stream()
            else:
                kind = "in torch's oldest layout, a tar archive" if _is_tar(start) else "not a torch file"
                raise InputError(
                    f"{file} is {kind}; expected one that torch.save of a later version wrote, or safetensors"
                )
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror or error}") from error
        self._tensors: Mapping[str, StoredTensor] = tensors
        for name, tensor in tensors.items():
            self._check(name, tensor)

    @property
    def where(self) -> str:
        """The path."""
        return str(self._file)

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Shape and dtype of every tensor."""
        return {name: Spec(t.shape, t.storage.dtype) for name, t in self._tensors.items()}

    @property
    def doubled(self) -> tuple[str, ...]:
        """None: a name that is there twice is an error of the pickle."""
        return ()

    def read(self, name: str) -> np.ndarray:
        """One tensor, in memory of its own."""
        tensor = self._tensors[name]
        elements = self._elements(tensor.storage)[tensor.storage.first + tensor.offset :]
        if tensor.strides == _contiguous(tensor.shape):
            return elements[: math.prod(tensor.shape)].reshape(tensor.shape)
        strides = [stride * elements.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides).copy()

    def _open_zip(self) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                members = {member.filename: member for member in archive.infolist()}
                pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
                if len(pickles) != 1 or members[pickles[0]].file_size > _MAX_PICKLE:
                    raise InputError(
                        f"{self._file} is a zip archive without torch's data.pkl; expected a file of torch.save"
                    )
                folder = pickles[0].removesuffix("data.pkl")
                order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
                if order != b"little":
                    raise InputError(
                        f"{self._file}: byte order {order!r}; expected a file of a little-endian host"
                    )
                tensors = self._tensors_of(io.BytesIO(archive.read(pickles[0])))
        except InputError:
            raise
        except _ZIP_ERRORS as error:
            raise self._broken(error) from error
        return tensors, {
            name.removeprefix(f"{folder}data/"): member
            for name, member in members.items()
            if name.startswith(f"{folder}data/") and member.compress_type == zipfile.ZIP_STORED
        }

    def _open_stream(self) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
        size = self._file.stat().st_size
        with open(self._file, "rb") as stream:
            if read_pickle(stream, self.where) != _MAGIC:
                raise InputError(
                    f"{self._file} is a pickle that torch.save did not write; expected a .pth file"
                )
            version, host = read_pickle(stream, self.where), read_pickle(stream, self.where)
            if version != _VERSION or not isinstance(host, dict) or not host.get("little_endian", True):
                raise InputError(
                    f"{self._file}: layout version {version!r:.50} of host {host!r:.100}; expected version "
                    f"{_VERSION} of a little-endian host"
                )
            tensors = self._tensors_of(stream)
            itemsizes = {t.storage.key: t.storage.dtype.itemsize for t in tensors.values()}
            places: dict[str, tuple[int, int]] = {}
            keys = read_pickle(stream, self.where)
            for key in map(str, keys if isinstance(keys, list) else ()):
                if key not in itemsizes:
                    raise InputError(f"{self._file}: storage {key} belongs to no tensor; save it again")
                numel, first = int.from_bytes(stream.read(8), "little"), stream.tell()
                end = first + numel * itemsizes[key]
                if end > size:
                    raise InputError(
                        f"{self._file} is truncated: storage {key} ends at byte {end} of {size}; copy it again"
                    )
                places[key] = (first, numel)
                stream.seek(end)
        return tensors, places

    def _tensors_of(self, stream: BinaryIO) -> dict[str, StoredTensor]:
        found = read_pickle(stream, self.where)
        if not isinstance(found, dict):
            raise InputError(f"{self._file} holds a {type(found).__name__}; expected a dictionary of tensors")
        others = [
            f"{name!r:.50} ({type(value).__name__})"
            for name, value in found.items()
            if not isinstance(name, str) or not isinstance(value, StoredTensor)
        ]
        if others:
            raise InputError(
                f"{self._file} holds more than tensors: {', '.join(others[:5])}; save the network's state_dict alone"
            )
        return found

    def _check(self, name: str, tensor: StoredTensor) -> None:
        """That the tensor lies in its storage, and the storage in the file."""
        storage = tensor.storage
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=False))
        inside = len(tensor.shape) == len(tensor.strides) and (
            0 in tensor.shape
            # the product too: elements that repeat (stride 0) would make a small file a tensor of any size
            or (tensor.offset + last < storage.numel and math.prod(tensor.shape) <= storage.numel)
        )
        need = (storage.first + storage.numel) * storage.dtype.itemsize
        if storage.key not in self._places:
            raise InputError(f"{self._file}: the bytes of {name} are missing or compressed; save it again")
        place = self._places[storage.key]
        held = place.file_size if self._zip else place[1] * storage.dtype.itemsize
        if not inside or need > held:
            raise InputError(
                f"{self._file}: {name} of shape {list(tensor.shape)} is not within its {held} bytes; copy it again"
            )

    def _elements(self, storage: Storage) -> np.ndarray:
        place = self._places[storage.key]
        if not self._zip:
            first, numel = place
            return read_tensor(TensorInfo(self._file, (numel,), storage.dtype, first))
        try:
            with zipfile.ZipFile(self._file) as archive:
                return np.frombuffer(bytearray(archive.read(place)), storage.dtype)
        except OSError as error:
            raise InputError(f"cannot read {self._file}: {error.strerror or error}") from error
        except _ZIP_ERRORS as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> InputError:
        return InputError(f"{self._file} is truncated or corrupt ({error}); copy it again")


def _start(file: Path) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _is_tar(start: bytes) -> bool:
    return start[257:262] == _TAR


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()
