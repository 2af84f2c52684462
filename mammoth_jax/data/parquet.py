"""Tables of pictures in parquet files: embedded bytes or paths, one row group in memory at a time and thread."""

import bisect
import collections
import dataclasses
import itertools
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field, PictureField, check_names, pick_columns
from mammoth_jax.data.file_lists import list_files, short_names
from mammoth_jax.data.mixing import WINDOW_BLOCKS
from mammoth_jax.data.picture_files import PictureFiles, flatten
from mammoth_jax.data.record import Record, UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parquet:
    """``files`` are names with braces and globs; ``picture`` is the column of the picture: its bytes, its path (below
    ``root``, in ``tars``, or else beside the file), or both as Hugging Face data sets hold them.  Rows without a
    picture, or with several, have ``picture: ""`` and ``picture_fields`` instead.

    ``key`` is a column of unique values, if there is one; ``fields`` map other columns.  Rows are shuffled within
    windows of row groups, which are what parquet reads: a window of them stays in memory.
    """

    files: tuple[str, ...]
    weight: float = 1.0
    name: str = ""
    picture: str = "image"
    root: str = ""
    tars: tuple[str, ...] = ()
    key: str = ""
    fields: tuple[Field, ...] = ()
    picture_fields: tuple[PictureField, ...] = ()
    index_cache: str = ""

    def open(self) -> "ParquetSource":
        """Reads the files' footers.

        Raises:
          InputError: pyarrow is not installed, a file is missing, or a column is.
        """
        return ParquetSource(self)


def _pyarrow() -> ModuleType:
    """The library, if it is there."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "parquet files are read by pyarrow, which is not installed; pip install 'mammoth-jax[parquet]'"
        ) from error
    return pyarrow.parquet


class ParquetSource:
    """Rows in the order of files, row groups and rows; a key is the file's name and the key column or the row."""

    def __init__(self, config: Parquet):
        parquet = _pyarrow()
        self._config = config
        paths = list_files(config.files)
        self.name = config.name or paths[0].parent.name or str(paths[0])
        self.files = len(paths)
        check_names(config.fields, config.picture_fields, self.name)
        self._pictures = PictureFiles(config.root, config.tars, config.index_cache)
        named = (config.picture, config.key)
        mapped = (f.column for f in (*config.fields, *config.picture_fields))
        self._columns = list(dict.fromkeys([*filter(None, named), *mapped]))
        groups: list[tuple[Path, str, int, int, int]] = []  # file, its name, row group, its rows, first row
        problems = dict(self._pictures.problems)
        for path, short in zip(paths, short_names(paths), strict=True):
            try:
                with parquet.ParquetFile(path) as file:
                    missing = [c for c in self._columns if c not in file.schema_arrow.names]
                    if missing:
                        raise InputError(
                            f"{path}: no column {missing[0]!r}; it has {file.schema_arrow.names}"
                        )
                    rows = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            except InputError:
                raise
            except (OSError, ValueError) as error:  # pyarrow's own errors are kinds of these
                problems[short] = " ".join(str(error).split())
                continue
            starts = itertools.accumulate(rows, initial=0)
            groups += [
                (path, short, g, n, at) for g, (n, at) in enumerate(zip(rows, starts, strict=False)) if n
            ]
        self.problems = problems
        self._groups = groups
        self.blocks = tuple(group[3] for group in groups)
        self._ends = list(itertools.accumulate(self.blocks))
        if not groups:
            why = "; ".join(f"{name}: {what}" for name, what in list(problems.items())[:1])
            raise InputError(f"source {self.name}: no rows in {self.files} files; {why}")
        self._open_cache()

    def _open_cache(self) -> None:
        self._tables: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in self._groups]

    def __getstate__(self) -> dict[str, Any]:
        """All but what a process keeps for itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_tables", "_lock", "_reading")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_cache()

    def _table(self, group: int) -> Any:
        """A row group, read once by whichever thread needs it first; the last few used are kept."""
        with self._reading[group]:
            with self._lock:
                if group in self._tables:
                    self._tables.move_to_end(group)
                    return self._tables[group]
            path, _, number, _, _ = self._groups[group]
            with _pyarrow().ParquetFile(path) as file:
                table = file.read_row_group(number, columns=self._columns)
            with self._lock:
                self._tables[group] = table
                while len(self._tables) > WINDOW_BLOCKS:
                    self._tables.popitem(last=False)
            return table

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        group = bisect.bisect_right(self._ends, index)
        at = index - (self._ends[group - 1] if group else 0)
        path, short, _, _, first = self._groups[group]
        place = f"{short}:{first + at}"
        try:
            table = self._table(group)
            row = {name: table.column(name)[at].as_py() for name in self._columns}
        except (OSError, ValueError) as error:
            raise UnreadableRecord(f"{place}: {' '.join(str(error).split())}") from error
        try:
            fields = pick_columns(self._config.fields, row)
        except UnreadableRecord as error:
            raise UnreadableRecord(f"{place}: {error}") from error
        shown = {
            f.name: self._pictures.pictures(f, row[f.column], place, path.parent)
            for f in self._config.picture_fields
        }
        every = tuple(picture for found in shown.values() for picture in flatten(found))
        if self._config.picture:
            column = self._config.picture
            every = (self._pictures.picture(row[column], place, column, path.parent), *every)
        key = f"{short}:{row[self._config.key]}" if self._config.key else place
        return Record(key, self.name, every, fields | shown)
