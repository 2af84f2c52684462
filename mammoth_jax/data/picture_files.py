"""Pictures that records name by path or embed as bytes; paths lead below a folder, or into tars."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import PictureField
from mammoth_jax.data.file_lists import join_parts, list_files
from mammoth_jax.data.record import Picture, UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile, cached_index, index_tar


class PictureFiles:
    """Makes pictures of what records hold.

    A path is one below ``root`` or, without one, beside the file that has the record; with ``tars`` it is a member of
    one of them (``x.tar.split.000``, ... are one tar, so that what is published cut need not be unpacked).
    """

    def __init__(self, root: str, tars: Sequence[str] = (), index_cache: str = ""):
        """
        Raises:
          InputError: both are given, or a tar is missing.
        """
        if root and tars:
            raise InputError(
                f"pictures are below root {root!r} or in tars {list(tars)}, not both; give one of them"
            )
        self._root = Path(root).expanduser() if root else None
        self._members = TarMembers(tars, index_cache) if tars else None

    @property
    def problems(self) -> dict[str, str]:
        """Tars that cannot be read to their end, with what is wrong."""
        return {} if self._members is None else self._members.problems

    def pictures(self, field: PictureField, column: Any, where: str, beside: Path) -> tuple[Any, ...]:
        """The pictures of a field, a tuple also where it is one; lists in lists become tuples in tuples.

        Raises:
          UnreadableRecord: a value is neither bytes nor a path.
        """
        try:
            value = field.pick(column)
        except UnreadableRecord as error:
            raise UnreadableRecord(f"{where}: {error}") from error
        found = self._each(value, f"{where}.{field.name}", field.column, beside)
        return found if isinstance(found, tuple) else (found,)

    def _each(self, value: Any, where: str, column: str, beside: Path) -> Any:
        if value is None or value == "":
            return ()
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return tuple(self._each(v, f"{where}[{i}]", column, beside) for i, v in enumerate(value))
        return self.picture(value, where, column, beside)

    def picture(self, value: Any, where: str, column: str, beside: Path) -> Picture:
        """The picture of one value: bytes, a path, or Hugging Face's ``{"bytes": ..., "path": ...}``.

        Raises:
          UnreadableRecord: it is neither.
        """
        if isinstance(value, Mapping):  # either may be empty
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return Picture(where, functools.partial(bytes, value))
        if not isinstance(value, str):
            raise UnreadableRecord(
                f"{where}: {column} is neither bytes nor a path but {type(value).__name__}"
            )
        if self._members is not None:
            return Picture(f"{where} ({value})", functools.partial(self._members.read, value))
        path = (self._root or beside) / value
        return Picture(f"{where} ({path})", path.read_bytes)


def flatten(pictures: Any) -> tuple[Picture, ...]:
    """The pictures of a field in their order, nested or not."""
    if isinstance(pictures, Picture):
        return (pictures,)
    return tuple(picture for part in pictures for picture in flatten(part))


class TarMembers:
    """Members of tars by their paths."""

    def __init__(self, shards: Sequence[str], index_cache: str):
        groups = join_parts(list_files(shards))
        self._files = [PartedFile(parts) for parts in groups]
        cache = Path(index_cache).expanduser() if index_cache else None
        self._indices = [index_tar(f) if cache is None else cached_index(f, cache) for f in self._files]
        self.problems = {
            parts[0].name: index.problem
            for parts, index in zip(groups, self._indices, strict=True)
            if index.problem
        }
        keys = [np.array([k.removeprefix(b"./") for k in i.keys.tolist()], np.bytes_) for i in self._indices]
        every = np.concatenate(keys)
        order = np.argsort(every, kind="stable")
        self._keys = every[order]
        self._tars = np.repeat(np.arange(len(keys)), [len(k) for k in keys])[order]
        self._rows = np.concatenate([np.arange(len(k)) for k in keys])[order]

    def read(self, path: str) -> bytes:
        """A member's bytes.

        Raises:
          OSError: no tar has it, or it is cut short.
        """
        folder, _, name = path.removeprefix("./").rpartition("/")
        stem, _, extension = name.partition(".")
        key = (f"{folder}/{stem}" if folder else stem).encode()
        first, last = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for place in range(int(first), int(last)):
            tar = int(self._tars[place])
            index = self._indices[tar]
            if extension.lower() in index.extensions:
                span = index.spans[self._rows[place], index.extensions.index(extension.lower())]
                if span[0] >= 0:
                    return self._files[tar].pread(int(span[0]), int(span[1]))
        raise FileNotFoundError(2, f"no such member in {len(self._files)} tars")
