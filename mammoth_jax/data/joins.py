"""Fields that are kept apart from the data: a caption file for each picture, a table of captions."""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field, pick_columns
from mammoth_jax.data.folder import SUFFIXES
from mammoth_jax.data.keyed_rows import KeyedRows
from mammoth_jax.data.record import MissingFile, Record, UnreadableRecord


class OpenJoin(Protocol):
    """Fields for records."""

    def fields(self, record: Record) -> dict[str, Any]:
        """What goes with a record; nothing where there is nothing.

        Raises:
          UnreadableRecord: it cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilePerKey:
    """A text file a record becomes its field ``name``.

    ``path`` has the record's ``{shard}`` (its tar's name without ``.tar``), ``{key}`` (the rest of its key, without a
    picture's extension) and ``{stem}`` (the key's last part): ``captions/{stem}.txt``, ``more/{shard}/{key}.caption``.
    """

    path: str
    name: str = "caption"

    def __post_init__(self) -> None:
        if "{key}" not in self.path and "{stem}" not in self.path:
            raise InputError(
                f"path {self.path!r} of a file for each record: it needs the record's {{key}} or {{stem}}"
            )

    def open(self) -> OpenJoin:
        """Nothing is read yet."""
        return _Files(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableByKey:
    """Rows of tables (JSON lists or lines, JSON objects of keys and values, CSV) become ``fields``, by the column
    ``key``.

    A record's row is that of its own key without its shard and extension, or of its field ``by``.
    """

    files: tuple[str, ...]
    fields: tuple[Field, ...]
    key: str = "key"
    by: str = ""

    def open(self) -> OpenJoin:
        """Reads the tables' keys.

        Raises:
          InputError: a file is missing or of another form.
        """
        return _Table(self)


def key_parts(key: str) -> tuple[str, str]:
    """The shard in a record's key, if it has one, and the rest without a picture's extension."""
    shard, _, rest = key.rpartition(":")
    lower = rest.lower()
    suffix = next((s for s in SUFFIXES if lower.endswith(s)), "")
    return shard.removesuffix(".tar"), rest[: len(rest) - len(suffix)]


class _Files:
    """:class:`FilePerKey`, open."""

    def __init__(self, config: FilePerKey):
        self._config = config

    def fields(self, record: Record) -> dict[str, Any]:
        shard, key = key_parts(record.key)
        path = self._config.path
        for word, value in (("{shard}", shard), ("{key}", key), ("{stem}", key.rpartition("/")[2])):
            path = path.replace(word, value)
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFile(f"{record.key}: {path}: {error.strerror or error}") from error
        except OSError as error:
            raise UnreadableRecord(f"{record.key}: {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise UnreadableRecord(f"{record.key}: {path}: not UTF-8: {error}") from error
        return {self._config.name: text}


class _Table:
    """:class:`TableByKey`, open."""

    def __init__(self, config: TableByKey):
        self._config, self._rows = config, KeyedRows(config.files, config.key)

    def fields(self, record: Record) -> dict[str, Any]:
        by = self._config.by
        key = record.fields.get(by) if by else key_parts(record.key)[1]
        row = None if key is None else self._rows.get(key)
        return {} if row is None else pick_columns(self._config.fields, row)
