"""Webdataset shards: tars in which ``key.jpg``, ``key.txt`` and ``key.json`` make up one record."""

import bisect
import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field, PictureField, check_names
from mammoth_jax.data.file_lists import join_parts, list_files, short_names
from mammoth_jax.data.record import MissingFile, Picture, Record, UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile, cached_index, index_tar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tars:
    """``shards`` are file names, with braces and globs; ``x.tar.split.000``, ... are read as one tar.

    ``pictures`` are the extensions that hold the picture, the first that a key has; ``fields`` map other extensions,
    and ``picture_fields`` those of further pictures (``source.jpg``).
    Tars are indexed once, member by member; with a folder ``index_cache`` (beside the run, not in the data) the index
    is kept there.
    """

    shards: tuple[str, ...]
    weight: float = 1.0
    name: str = ""
    pictures: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    fields: tuple[Field, ...] = ()
    picture_fields: tuple[PictureField, ...] = ()
    index_cache: str = ""

    def open(self) -> "TarSource":
        """Indexes the shards.

        Raises:
          InputError: a shard is missing, or none holds a record with a picture.
        """
        return TarSource(self)


class TarSource:
    """Records in the order of shards and members; a key is the shard's name and the member's."""

    blocks = None

    def __init__(self, config: Tars):
        self._fields = config.fields
        shards = join_parts(list_files(config.shards))
        self._files = [PartedFile(parts) for parts in shards]
        self._names = short_names([parts[0] for parts in shards])
        self.name = config.name or shards[0][0].parent.name or str(shards[0][0])
        check_names(config.fields, config.picture_fields, self.name)
        self._picture_fields = config.picture_fields
        self.files = len(shards)
        cache = Path(config.index_cache).expanduser() if config.index_cache else None
        self._indices = [index_tar(f) if cache is None else cached_index(f, cache) for f in self._files]
        self.problems = {
            name: index.problem
            for name, index in zip(self._names, self._indices, strict=True)
            if index.problem
        }
        # Of every shard: which column of its spans holds each key's picture, and which keys have one.
        self._columns, self._rows = [], []
        for index in self._indices:
            column = np.full(len(index.keys), -1)
            for extension in reversed([e for e in config.pictures if e in index.extensions]):
                at = index.extensions.index(extension)
                column = np.where(index.spans[:, at, 0] >= 0, at, column)
            rows = np.flatnonzero(column >= 0)
            self._rows.append(rows)
            self._columns.append(column[rows])
        self._ends = list(itertools.accumulate(len(rows) for rows in self._rows))
        if not self._ends[-1]:
            why = "; ".join(f"{name}: {what}" for name, what in list(self.problems.items())[:1])
            raise InputError(
                f"source {self.name}: no member of {self.files} tars is a picture ({', '.join(config.pictures)})"
                + (f"; {why}" if why else "")
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        shard = bisect.bisect_right(self._ends, index)
        at = index - (self._ends[shard - 1] if shard else 0)
        row, column = int(self._rows[shard][at]), int(self._columns[shard][at])
        table, file = self._indices[shard], self._files[shard]
        member = table.keys[row].decode()
        name = f"{self._names[shard]}:{member}"
        spans = {
            extension: (offset, size)
            for extension, (offset, size) in zip(table.extensions, table.spans[row].tolist(), strict=True)
            if offset >= 0
        }

        @functools.cache
        def picture(extension: str) -> Picture:
            return Picture(f"{name}.{extension}", functools.partial(file.pread, *spans[extension]))

        fields: dict[str, Any] = {}
        for field in self._fields:
            if field.column not in spans or field.name in fields:
                continue
            try:
                fields[field.name] = field.pick(file.pread(*spans[field.column]))
            except FileNotFoundError as error:
                raise MissingFile(f"{name}.{field.column}: {error.strerror or error}") from error
            except OSError as error:
                raise UnreadableRecord(f"{name}.{field.column}: {error.strerror or error}") from error
            except UnreadableRecord as error:
                raise UnreadableRecord(f"{name}.{field.column}: {error}") from error
        for field in self._picture_fields:
            fields[field.name] = (picture(field.column),) if field.column in spans else ()
        return Record(name, self.name, (picture(table.extensions[column]),), fields)
