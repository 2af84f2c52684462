"""Where the members of a tar are, so that any of them is read by itself; the tar may be cut into parts."""

import bisect
import dataclasses
import hashlib
import io
import itertools
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.files import write_whole
from mammoth_jax.core.types import Int, Shaped


class PartedFile:
    """A file, or the parts of a file, read as one, from any thread or process: it is opened for each read."""

    def __init__(self, parts: Sequence[Path]):
        self.parts = tuple(parts)
        self._ends = list(itertools.accumulate(p.stat().st_size for p in parts))

    def size(self) -> int:
        """Bytes of all parts."""
        return self._ends[-1]

    def pread(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``.

        Raises:
          OSError: the file is shorter, or gone.
        """
        out = b""
        while len(out) < size:
            at = offset + len(out)
            i = bisect.bisect_right(self._ends, at)
            if i == len(self.parts):
                break
            start = self._ends[i - 1] if i else 0
            with open(self.parts[i], "rb") as file:
                got = os.pread(file.fileno(), min(size - len(out), self._ends[i] - at), at - start)
            if not got:
                break
            out += got
        if len(out) < size:
            raise OSError(f"cut short: {len(out)} of {size} bytes from byte {offset} on")
        return out


class _Reader(io.RawIOBase):
    """A :class:`PartedFile` as an ordinary file, for ``tarfile``."""

    def __init__(self, file: PartedFile):
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size()}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.pread(self._at, max(min(len(buffer), self._file.size() - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """Members of a tar by key: ``spans[i, e]`` are offset and size of extension ``e`` of key ``i``, -1 where absent.

    A key is a member's path up to the first dot of its file name; the extension is the rest, in lower case.
    ``problem`` says what is wrong with the tar, if something is: what stands before the damage is indexed.
    """

    keys: Shaped[np.ndarray, " n"]
    extensions: tuple[str, ...]
    spans: Int[np.ndarray, "n e 2"]
    problem: str = ""


def index_tar(file: PartedFile) -> TarIndex:
    """Reads all headers of a tar."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    problem, count = "", 0
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Reader(file), 1 << 14), mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > file.size():
                    raise tarfile.ReadError("unexpected end of data")
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    if stem and extension:
                        found.setdefault(key, {})[extension.lower()] = (member.offset_data, member.size)
                    count += 1
                tar.members = []  # else every header stays in memory  # pyright: ignore
    except (tarfile.TarError, OSError) as error:
        problem = f"{error} after {count} members"
    extensions = tuple(sorted({e for spans in found.values() for e in spans}))
    spans = [[found[key].get(e, (-1, -1)) for e in extensions] for key in found]
    keys = np.array([key.encode() for key in found], dtype=np.bytes_)
    return TarIndex(
        keys, extensions, np.array(spans, np.int64).reshape(len(found), len(extensions), 2), problem
    )


def cached_index(file: PartedFile, cache: Path) -> TarIndex:
    """As :func:`index_tar`, kept in the folder ``cache`` until the tar changes."""
    stamp = [(str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in file.parts]
    place = cache / f"{hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]}.npz"
    if place.is_file():
        with np.load(place, allow_pickle=False) as saved:
            return TarIndex(
                saved["keys"], tuple(saved["extensions"].tolist()), saved["spans"], str(saved["problem"])
            )
    index = index_tar(file)
    arrays = {**dataclasses.asdict(index), "extensions": np.array(index.extensions, dtype=np.str_)}

    def write(path: Path) -> None:
        with open(path, "wb") as out:
            np.savez(out, **arrays)

    cache.mkdir(parents=True, exist_ok=True)
    write_whole(place, write)
    return index
