"""Plain text files as documents: one a file, or several with a separator between them."""

import bisect
import dataclasses
import itertools

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Int
from mammoth_jax.data.file_lists import list_files, short_names
from mammoth_jax.data.json_index import PIECE
from mammoth_jax.data.record import Record, UnreadableRecord
from mammoth_jax.data.tar_index import PartedFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDocuments:
    """``files`` are names with braces and globs; with a ``separator`` (a line end, two of them, ``<|endoftext|>``)
    each part of a file is a document, else the whole file.  Records have the field ``text``.
    """

    files: tuple[str, ...]
    weight: float = 1.0
    name: str = ""
    separator: str = ""

    def open(self) -> "TextSource":
        """Finds the documents.

        Raises:
          InputError: a file is missing, or all are empty.
        """
        return TextSource(self)


class TextSource:
    """Documents in the order of files; a key is the file's name and the document's number in it."""

    blocks = None

    def __init__(self, config: TextDocuments):
        paths = list_files(config.files)
        self.name = config.name or paths[0].parent.name or str(paths[0])
        self.files, self.problems = len(paths), {}
        self._names = short_names(paths)
        self._readers = [PartedFile((path,)) for path in paths]
        self._separator = config.separator.encode()
        self._starts = [_find_documents(reader, self._separator) for reader in self._readers]
        self._ends = list(itertools.accumulate(len(starts) - 1 for starts in self._starts))
        if not self._ends[-1]:
            raise InputError(f"source {self.name}: {self.files} files of text are empty")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        number = bisect.bisect_right(self._ends, index)
        at = index - (self._ends[number - 1] if number else 0)
        key = f"{self._names[number]}:{at}"
        start, end = self._starts[number][at : at + 2].tolist()
        try:
            text = self._readers[number].pread(start, end - start)
            while self._separator and text.endswith(self._separator):
                text = text.removesuffix(self._separator)
            return Record(key, self.name, (), {"text": text.decode("utf-8")})
        except UnicodeDecodeError as error:
            raise UnreadableRecord(f"{key}: not UTF-8: {error}") from error
        except OSError as error:
            raise UnreadableRecord(f"{key}: {error.strerror or error}") from error


def _find_documents(file: PartedFile, separator: bytes) -> Int[np.ndarray, " n1"]:
    """Starts of documents, and the end of the file; a document ends with its separator, or several of them."""
    size, starts = file.size(), [0]
    if separator:
        for offset in range(0, size, PIECE):
            piece = file.pread(offset, min(PIECE + len(separator) - 1, size - offset))
            at = piece.find(separator, max(starts[-1] - offset, 0))
            while at >= 0:
                if offset + at == starts[-1]:  # nothing before it: no document, it goes with the one before
                    starts.pop()
                starts.append(offset + at + len(separator))
                at = piece.find(separator, at + len(separator))
    return np.array(starts if starts[-1] == size else [*starts, size], np.int64)
