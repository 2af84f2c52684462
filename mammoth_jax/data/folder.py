"""A folder of pictures, with files of the same name beside them as fields."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field
from mammoth_jax.data.record import Picture, Record, UnreadableRecord

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """All pictures below ``path``; ``fields`` map extensions of files beside them (``txt``)."""

    path: str
    weight: float = 1.0
    fields: tuple[Field, ...] = ()

    def open(self) -> "FolderSource":
        """Lists the folder.

        Raises:
          InputError: it is missing or holds no picture.
        """
        return FolderSource(self)


class FolderSource:
    """Pictures in the order of their paths; a key is the path below the folder."""

    def __init__(self, config: Folder):
        self._folder = Path(config.path).expanduser()
        self._fields = config.fields
        self.name = self._folder.name or str(self._folder)
        if not self._folder.is_dir():
            raise InputError(f"folder of pictures {self._folder}: no such folder")
        self._keys = sorted(
            os.path.relpath(os.path.join(top, file), self._folder).replace(os.sep, "/")
            for top, _, files in os.walk(self._folder, followlinks=True)
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        )
        if not self._keys:
            raise InputError(
                f"folder of pictures {self._folder}: no {', '.join(s[1:] for s in SUFFIXES)} file in it or below"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Record:
        key = self._keys[index]
        path = self._folder / key
        fields: dict[str, Any] = {}
        try:
            for field in self._fields:
                file = path.with_suffix("." + field.column)
                if field.name not in fields and file.is_file():
                    fields[field.name] = field.pick(file.read_bytes())
        except (OSError, UnreadableRecord) as error:
            raise UnreadableRecord(f"{path}: {error}") from error
        return Record(key, self.name, (Picture(str(path), path.read_bytes),), fields)
