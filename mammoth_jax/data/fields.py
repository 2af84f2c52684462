"""Field maps: which column, member or sidecar file of a data set holds what this project calls ``caption``."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mammoth_jax.data.record import UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """``name`` in the record is ``column`` in the data: the extension of a file or tar member, or a table's column.

    ``key`` looks into a column of JSON: ``size.width``.
    """

    name: str
    column: str
    key: str = ""

    def pick(self, value: Any) -> Any:
        """The field's value out of what the column holds: text, as bytes or not; JSON if there is a ``key``.

        Raises:
          UnreadableRecord: there is no such key, or no JSON.
        """
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if self.key and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UnreadableRecord(f"field {self.name}: {self.column} is not JSON: {error}") from error
        for key in filter(None, self.key.split(".")):
            if not isinstance(value, Mapping) or key not in value:
                raise UnreadableRecord(
                    f"field {self.name}: no {self.key!r} in {self.column}: {str(value)[:80]}"
                )
            value = value[key]
        return value
