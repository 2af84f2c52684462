"""Field maps: which column, member or sidecar file of a data set holds what this project calls ``caption``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.record import UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """``name`` in the record is ``column`` in the data: the extension of a file or tar member, a table's column, or a
    key of a JSON record.

    ``key`` looks into JSON: ``size.width``; a number is a place in a list, ``*`` all of its items (``*.prompt``).
    With ``parse: json`` text that is JSON becomes what it says.  Of several fields of one name the first that is there
    counts.
    """

    name: str
    column: str
    key: str = ""
    parse: Literal["text", "json"] = "text"

    def pick(self, value: Any) -> Any:
        """The field's value out of what the column holds: text, as bytes or not; JSON if it is asked for.

        Raises:
          UnreadableRecord: there is no such key, or no JSON.
        """
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if isinstance(value, str) and (self.key or self.parse == "json"):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UnreadableRecord(f"field {self.name}: {self.column} is not JSON: {error}") from error
        return self._inside(value, tuple(filter(None, self.key.split("."))))

    def _inside(self, value: Any, path: tuple[str, ...]) -> Any:
        """What stands below ``path``."""
        if not path:
            return value
        key, *rest = path
        if isinstance(value, Sequence) and not isinstance(value, str):
            if key == "*":
                return [self._inside(item, tuple(rest)) for item in value]
            if key.isdecimal() and int(key) < len(value):
                return self._inside(value[int(key)], tuple(rest))
        if not isinstance(value, Mapping) or key not in value:
            raise UnreadableRecord(f"field {self.name}: no {key!r} in {self.column}: {str(value)[:80]}")
        return self._inside(value[key], tuple(rest))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureField:
    """Pictures under a ``name``: ``column`` and ``key`` say, as those of a :class:`Field`, where their paths or bytes
    are.  The record's field is a tuple of pictures, empty where there is none; nested where the data nests them.
    """

    name: str
    column: str
    key: str = ""

    def pick(self, value: Any) -> Any:
        """The paths or bytes out of what the column holds.

        Raises:
          UnreadableRecord: there is no such key, or no JSON.
        """
        if not self.key:
            return value
        return Field(name=self.name, column=self.column, key=self.key).pick(value)


def pick_columns(fields: Sequence[Field], row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row of columns; one whose column is absent or null is left out.

    Raises:
      UnreadableRecord: a column lacks a key, or is not JSON.
    """
    out: dict[str, Any] = {}
    for field in fields:
        if field.name not in out and row.get(field.column) is not None:
            out[field.name] = field.pick(row[field.column])
    return out


def check_names(fields: Sequence[Field], pictures: Sequence[PictureField], source: str) -> None:
    """Refuses a name that means a picture as well as a field, or two kinds of pictures.

    Raises:
      InputError: it names the source and the name.
    """
    names = [p.name for p in pictures]
    twice = [n for i, n in enumerate(names) if n in names[:i] or n in {f.name for f in fields}]
    if twice:
        raise InputError(f"source {source}: two fields are called {twice[0]!r}; give each a name of its own")
