"""Records in JSON and JSON-lines files, with pictures by path: conversations, edits, captions.

Files are indexed, not loaded; a record is read when it is asked for.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field, PictureField, check_names, pick_columns
from mammoth_jax.data.file_lists import list_files, short_names
from mammoth_jax.data.json_index import cached_json_index, read_json
from mammoth_jax.data.picture_files import PictureFiles, flatten
from mammoth_jax.data.record import Record, UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonRecords:
    """``files`` are names with braces and globs, each a JSON list of objects or an object a line.

    Pictures are found below ``root``, in ``tars``, or else beside their file.  ``key`` is a column of unique values,
    if there is one; ``fields`` and ``picture_fields`` map the columns.
    """

    files: tuple[str, ...]
    weight: float = 1.0
    name: str = ""
    root: str = ""
    tars: tuple[str, ...] = ()
    key: str = ""
    fields: tuple[Field, ...] = ()
    picture_fields: tuple[PictureField, ...] = ()
    index_cache: str = ""

    def open(self) -> "JsonSource":
        """Indexes the files.

        Raises:
          InputError: a file is missing, or there is no record in any.
        """
        paths = list_files(self.files)
        pictures = PictureFiles(self.root, self.tars, self.index_cache)
        return JsonSource(
            self, [AnnotationFile(p, n, pictures) for p, n in zip(paths, short_names(paths), strict=True)]
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotationLists:
    """``lists`` are text files (``data.txt``) of lines ``image_root,annotations.json,flag``: annotations as those of
    :class:`JsonRecords`, the folder of their pictures, and whether the changed region has a weight of its own, which
    becomes the field ``region_weight``.  Paths may be relative to the list; ``#`` begins a remark.
    """

    lists: tuple[str, ...]
    weight: float = 1.0
    name: str = ""
    key: str = ""
    fields: tuple[Field, ...] = ()
    picture_fields: tuple[PictureField, ...] = ()
    index_cache: str = ""

    def open(self) -> "JsonSource":
        """Reads the lists and indexes what they name.

        Raises:
          InputError: a line is not of that form, a file is missing, or there is no record in any.
        """
        lines = [line for file in list_files(self.lists) for line in _read_list(file)]
        if not lines:
            raise InputError(f"lists of annotations {list(self.lists)}: no line in them names a file")
        names = short_names([path for _, path, _ in lines])
        return JsonSource(
            self,
            [
                AnnotationFile(path, name, PictureFiles(str(root)), {"region_weight": flag})
                for (root, path, flag), name in zip(lines, names, strict=True)
            ],
        )


@dataclasses.dataclass(frozen=True)
class AnnotationFile:
    """A file of records: where it is, its name in keys, where its pictures are, and fields of all its records."""

    path: Path
    name: str
    pictures: PictureFiles
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def _read_list(file: Path) -> list[tuple[Path, Path, bool]]:
    """Lines of a ``data.txt``: folder of pictures, annotations, flag."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        root, *rest = [part.strip() for part in line.split(",")]
        if not 1 <= len(rest) <= 2 or (rest[1:] and rest[1].lower() not in _FLAGS):
            raise InputError(
                f"{file}:{number}: {line!r} is not image_root,annotations.json,flag with a flag of true or false"
            )
        path = file.parent / Path(rest[0]).expanduser()
        if not path.is_file():
            raise InputError(f"{file}:{number}: {path}: no such file of annotations")
        flag = _FLAGS[rest[1].lower()] if rest[1:] else False
        found.append((file.parent / Path(root).expanduser(), path, flag))
    return found


class JsonSource:
    """Records in the order of files and items; a key is the file's name and the key column or the number."""

    blocks = None

    def __init__(self, config: JsonRecords | AnnotationLists, files: Sequence[AnnotationFile]):
        self.name = config.name or files[0].path.parent.name or str(files[0].path)
        check_names(config.fields, config.picture_fields, self.name)
        self._key, self._fields, self._picture_fields = config.key, config.fields, config.picture_fields
        self.files = len(files)
        self._annotations = list(files)
        self._readers = [PartedFile((file.path,)) for file in files]
        indices = [cached_json_index(reader, config.index_cache) for reader in self._readers]
        self._starts = [index.starts for index in indices]
        self._ends = list(itertools.accumulate(len(starts) - 1 for starts in self._starts))
        self.problems = {f.name: i.problem for f, i in zip(files, indices, strict=True) if i.problem}
        for file in files:
            self.problems |= file.pictures.problems
        if not self._ends[-1]:
            why = "; ".join(f"{name}: {what}" for name, what in list(self.problems.items())[:1])
            raise InputError(
                f"source {self.name}: no records in {self.files} files" + (f"; {why}" if why else "")
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        number = bisect.bisect_right(self._ends, index)
        at = index - (self._ends[number - 1] if number else 0)
        file, starts = self._annotations[number], self._starts[number]
        where = f"{file.name}:{at}"
        try:
            row = read_json(self._readers[number], int(starts[at]), int(starts[at + 1]))
            if not isinstance(row, Mapping):
                raise UnreadableRecord(f"an object expected, found {str(row)[:40]!r}")
            fields = {**file.fields, **pick_columns(self._fields, row)}
            if self._key and row.get(self._key) is None:
                raise UnreadableRecord(f"no {self._key!r}, which is to be its key")
        except UnreadableRecord as error:
            raise UnreadableRecord(f"{where}: {error}") from error
        shown: dict[str, tuple[Any, ...]] = {}
        for field in self._picture_fields:
            value = row.get(field.column)
            shown[field.name] = file.pictures.pictures(field, value, where, file.path.parent)
        key = f"{file.name}:{row[self._key]}" if self._key else where
        every = tuple(picture for found in shown.values() for picture in flatten(found))
        return Record(key, self.name, every, fields | shown)
