"""Field maps: which column, member or sidecar file of a data set holds what this project calls ``caption``."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mammoth_jax.data.record import UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """``name`` in the record is ``column`` in the data: a file extension or a table's column.

    ``json.size.width`` looks into the JSON of the extension or column ``json``.
    """

    name: str
    column: str

    @property
    def container(self) -> str:
        """The extension or column itself."""
        return self.column.partition(".")[0]

    def pick(self, value: Any) -> Any:
        """The field's value out of what the container holds: text or JSON text, as bytes or not.

        Raises:
          UnreadableRecord: there is no such key, or no JSON.
        """
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        path = self.column.split(".")[1:]
        if path and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UnreadableRecord(f"field {self.name}: {self.container} is not JSON: {error}") from error
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                raise UnreadableRecord(f"field {self.name}: no {key!r} of {self.column} in {str(value)[:80]}")
            value = value[key]
        return value
