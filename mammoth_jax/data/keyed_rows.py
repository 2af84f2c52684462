"""Rows of tables found by key: JSON lists and lines, JSON objects, CSV.

A table is read once to see its keys; then only their checksums and places stay in memory (32 bytes a row), and a row is
read when it is asked for.  Of several rows of one key the last counts.
"""

import array
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.file_lists import list_files
from mammoth_jax.data.json_index import Scanner, index_json, read_json
from mammoth_jax.data.record import UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile


class KeyedRows:
    """Rows of the files named, by what stands in their column ``key``.

    ``x.csv`` has a head line; any other file is JSON: a list of objects, an object a line, or one object of keys and
    values (rows, or texts, which become the column ``value``), which it is if its name ends on ``.json`` and it begins
    with a brace.
    """

    def __init__(self, files: Sequence[str], key: str):
        """
        Raises:
          InputError: a file is missing, not of that form, or a row has no such column.
        """
        self._key = key
        self._tables = [_open_table(path, key) for path in list_files(files)]
        found = array.array("Q")
        for number, table in enumerate(self._tables):
            for named, *place in table.places():
                found.extend((_checksum(named), number, *place))
        rows = np.frombuffer(found, np.uint64).reshape(-1, 4)
        order = np.argsort(rows[:, 0], kind="stable")
        self._checksums, self._rows = rows[order, 0], rows[order, 1:].astype(np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Any) -> Mapping[str, Any] | None:
        """The row of a key, None if there is none.

        Raises:
          UnreadableRecord: it cannot be read any more.
        """
        number = np.uint64(_checksum(str(key)))
        first = int(np.searchsorted(self._checksums, number, "left"))
        last = int(np.searchsorted(self._checksums, number, "right"))
        for table, start, end in reversed(self._rows[first:last].tolist()):
            row = self._tables[table].row(start, end, str(key))
            if row is not None:
                return row
        return None


def _checksum(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


class _JsonTable:
    """A list of objects, or one a line."""

    def __init__(self, path: Path, key: str):
        self._path, self._key, self._file = path, key, PartedFile((path,))

    def places(self) -> Iterator[tuple[str, int, int]]:
        index = index_json(self._file)
        if index.problem:
            raise InputError(f"{self._path}: {index.problem}")
        for number, (start, end) in enumerate(
            zip(index.starts.tolist(), index.starts[1:].tolist(), strict=False)
        ):
            try:
                row = read_json(self._file, start, end)
            except UnreadableRecord as error:
                raise InputError(f"{self._path}: row {number}: {error}") from error
            if not isinstance(row, Mapping) or row.get(self._key) is None:
                raise InputError(f"{self._path}: row {number} has no {self._key!r}: {str(row)[:80]}")
            yield str(row[self._key]), start, end

    def row(self, start: int, end: int, key: str) -> Mapping[str, Any] | None:
        row = read_json(self._file, start, end)
        return row if str(row[self._key]) == key else None


class _JsonObject:
    """One object of keys and values."""

    def __init__(self, path: Path):
        self._path, self._file = path, PartedFile((path,))

    def places(self) -> Iterator[tuple[str, int, int]]:
        scanner = Scanner(self._file)
        try:
            scanner.take("{")
            while scanner.peek() != "}":
                start = scanner.offset
                key = scanner.value()
                if not key.isascii():
                    key = json.loads(self._file.pread(start, scanner.offset - start))
                scanner.take(":")
                scanner.value()
                yield key, start, scanner.offset
                if scanner.peek() == ",":
                    scanner.take(",")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{self._path}: not a JSON object of keys and values: {error}") from error

    def row(self, start: int, end: int, key: str) -> Mapping[str, Any] | None:
        found = _again(self._path, lambda: json.loads(b"{" + self._file.pread(start, end - start) + b"}"))
        if key not in found:
            return None
        return found[key] if isinstance(found[key], Mapping) else {"value": found[key]}


class _CsvTable:
    """Comma-separated values under a head line; a quoted value may go over several lines."""

    def __init__(self, path: Path, key: str):
        self._path, self._key, self._file = path, key, PartedFile((path,))
        self._head: list[str] = []

    def places(self) -> Iterator[tuple[str, int, int]]:
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            with open(self._path, "rb") as file:
                for line in file:
                    end += len(line)
                    yield line.decode("utf-8-sig")

        rows, start = csv.reader(lines()), 0
        try:
            self._head = next(rows, [])
            if self._key not in self._head:
                raise InputError(f"{self._path}: no column {self._key!r}; it has {self._head}")
            start = end
            for row in rows:
                begin, start = start, end
                if row:
                    yield self._named(row)[self._key], begin, end
        except (csv.Error, UnicodeDecodeError, KeyError) as error:
            raise InputError(f"{self._path}: not a table, before byte {end}: {error}") from error

    def _named(self, row: list[str]) -> dict[str, str]:
        return dict(zip(self._head, row, strict=False))

    def row(self, start: int, end: int, key: str) -> Mapping[str, Any] | None:
        text = _again(self._path, lambda: self._file.pread(start, end - start).decode("utf-8-sig"))
        row = self._named(next((r for r in csv.reader(text.splitlines(keepends=True)) if r), []))
        return row if row.get(self._key) == key else None


def _again(path: Path, read: Callable[[], Any]) -> Any:
    """What is read from a place that could be read before."""
    try:
        return read()
    except OSError as error:
        raise UnreadableRecord(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UnreadableRecord(f"{path}: changed since it was indexed: {error}") from error


def _open_table(path: Path, key: str) -> _JsonTable | _JsonObject | _CsvTable:
    """The table in a file."""
    if path.suffix.lower() == ".csv":
        return _CsvTable(path, key)
    with open(path, "rb") as file:
        head = file.read(1 << 12).lstrip()
    return _JsonObject(path) if path.suffix == ".json" and head[:1] == b"{" else _JsonTable(path, key)
