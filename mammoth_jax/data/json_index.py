"""Where the records of a JSON or JSON-lines file begin, so that any of them is read by itself.

A list is scanned piece by piece, so that a file larger than the memory can be indexed.  It is read as Latin-1: JSON's
own signs are ASCII, and so a place in the text is a place in the file, whatever letters the strings hold.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.files import write_whole
from mammoth_jax.core.types import Int
from mammoth_jax.data.record import UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile

PIECE = 1 << 23
LARGEST = 1 << 27
"""Bytes of the largest record; more is taken for a missing quote or bracket."""

_MARK = "\ufeff".encode()


@dataclasses.dataclass(frozen=True)
class JsonIndex:
    """``starts[i]`` is where record ``i`` begins, and ``starts[i + 1]`` behind its end.

    ``problem`` says what is wrong with the file, if something is: records before the damage are indexed.
    """

    starts: Int[np.ndarray, " n1"]
    problem: str = ""


def index_json(file: PartedFile) -> JsonIndex:
    """Finds the items of a list, or the lines of a file that is none; empty lines are no records."""
    head = file.pread(0, min(file.size(), 1 << 12))
    skip = len(_MARK) if head.startswith(_MARK) else 0
    if head[skip:].lstrip()[:1] != b"[":
        return JsonIndex(_line_starts(file, skip))
    scanner = Scanner(file, skip)
    starts = []
    try:
        scanner.take("[")
        while scanner.peek() != "]":
            if starts:
                scanner.take(",")
            scanner.peek()
            starts.append(scanner.offset)
            scanner.value()
        starts.append(scanner.offset)
    except ValueError as error:
        problem = f"not JSON after {max(len(starts) - 1, 0)} records: {error}"
        return JsonIndex(np.array(starts or [0], np.int64), problem)
    return JsonIndex(np.array(starts, np.int64))


def cached_json_index(file: PartedFile, cache: str) -> JsonIndex:
    """As :func:`index_json`, kept in the folder ``cache``, if one is named, until the file changes."""
    if not cache:
        return index_json(file)
    stamp = [(str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in file.parts]
    folder = Path(cache).expanduser()
    place = folder / f"{hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]}.json.npz"
    if place.is_file():
        with np.load(place, allow_pickle=False) as saved:
            return JsonIndex(saved["starts"], str(saved["problem"]))
    index = index_json(file)

    def write(path: Path) -> None:
        with open(path, "wb") as out:
            np.savez(out, **dataclasses.asdict(index))

    folder.mkdir(parents=True, exist_ok=True)
    write_whole(place, write)
    return index


def read_json(file: PartedFile, start: int, end: int) -> Any:
    """The value between two places of a file.

    Raises:
      UnreadableRecord: it is not JSON, or the file is gone or shorter.
    """
    try:
        text = file.pread(start, end - start).decode("utf-8").strip()
        value, stop = json.JSONDecoder().raw_decode(text)
        if text[stop:].strip() not in ("", ","):
            raise ValueError(f"more than one value in a record: {text[stop:][:40]!r}")
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"not JSON: {error}") from error
    except OSError as error:
        raise UnreadableRecord(error.strerror or str(error)) from error
    return value


def _line_starts(file: PartedFile, at: int) -> Int[np.ndarray, " n1"]:
    """Starts of lines that are not empty, and the end; an empty line belongs to the record before it."""
    starts = [np.array([at], np.int64)]
    size = file.size()
    for offset in range(at, size, PIECE):
        piece = np.frombuffer(file.pread(offset, min(PIECE, size - offset)), np.uint8)
        starts.append(np.flatnonzero(piece == ord("\n")) + offset + 1)
    every = np.append(np.concatenate(starts), size)
    lengths = np.diff(every)
    filled = lengths > 2
    for i in np.flatnonzero(~filled):
        filled[i] = bool(lengths[i] and file.pread(int(every[i]), int(lengths[i])).strip())
    return np.append(every[:-1][filled], size)


class Scanner:
    """A place in a JSON file that moves forward value by value, with a window of the file in memory."""

    def __init__(self, file: PartedFile, start: int = 0):
        self._file, self._base, self._text, self._at = file, start, "", 0

    @property
    def offset(self) -> int:
        """The place, in bytes."""
        return self._base + self._at

    def peek(self) -> str:
        """The next sign that is not white space, ``""`` at the end; the place moves before it."""
        while True:
            rest = len(self._text)
            while self._at < rest and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < rest:
                return self._text[self._at]
            if not self._grow():
                return ""

    def take(self, sign: str) -> None:
        """Moves behind a sign that must come next.

        Raises:
          ValueError: another one comes.
        """
        found = self.peek()
        if found != sign:
            raise ValueError(
                f"{sign!r} expected at byte {self.offset}, found {found or 'the end of the file'!r}"
            )
        self._at += 1

    def value(self) -> Any:
        """The next value; its strings are UTF-8 read as Latin-1.

        Raises:
          ValueError: it is not JSON, or larger than :data:`LARGEST`.
        """
        self.peek()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
                if end < len(self._text) or not self._grow():
                    self._at = end
                    return value
                continue  # a number may go on in the next piece
            except RecursionError as error:
                raise ValueError(f"values nested too deeply at byte {self.offset}") from error
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LARGEST or not self._grow():
                    raise ValueError(f"{error.msg} at byte {self._base + error.pos}") from error

    def _grow(self) -> bool:
        """Reads on, drops what lies behind; False at the end of the file."""
        read = self._base + len(self._text)
        piece = min(max(PIECE, len(self._text) - self._at), self._file.size() - read)
        if piece <= 0:
            return False
        text = self._file.pread(read, piece).decode("latin-1")
        self._base, self._text, self._at = self._base + self._at, self._text[self._at :] + text, 0
        return True
