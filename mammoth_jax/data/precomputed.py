"""Shards of precomputed arrays as a source: see ``shard_writer`` for how they are made."""

import bisect
import collections
import dataclasses
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.record import Record, UnreadableRecord
from mammoth_jax.data.shard_writer import MANIFEST, read_description, shard_path

OPEN_FILES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precomputed:
    """The finished shards in a folder; their records have the arrays as fields, and no pictures."""

    path: str
    weight: float = 1.0

    def open(self, models: Mapping[str, str]) -> "PrecomputedSource":
        """Reads the manifest.  ``models`` are the fingerprints of this run's models by role.

        Raises:
          InputError: the shards are missing or not finished, or other models made them.
        """
        return PrecomputedSource(Path(self.path).expanduser(), models)


class PrecomputedSource:
    """A record for each picture, under its key and in the order of the originals, without those left out."""

    blocks = None

    def __init__(self, folder: Path, models: Mapping[str, str]):
        self._folder = folder
        self.description = read_description(folder)
        for model in self.description.models:
            if models.get(model.role) != model.fingerprint:
                raise InputError(
                    f"{folder}: shards were made by {model.role} {model.fingerprint}, this run has "
                    f"{models.get(model.role, 'none')}; precompute them with its weights, or train with theirs"
                )
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: shards are not finished; run precompute again, it goes on"
            ) from error
        self.name = f"{self.description.source}/{folder.name}"
        self.shapes = {
            tuple(sorted((name, tuple(shape)) for name, shape in entry["arrays"].items())): entry["records"]
            for entry in manifest["shapes"]
        }
        shards = manifest["shards"]
        self.files = len(shards)
        self.problems: dict[str, str] = {}
        self._shards: list[Path] = []
        counts = []
        for number, shard in enumerate(shards):
            path = shard_path(folder, number)
            size = path.stat().st_size if path.is_file() else -1
            if size != shard["bytes"]:
                what = "missing" if size < 0 else f"has {size} bytes instead of {shard['bytes']}"
                self.problems[path.name] = what
            elif shard["records"]:
                self._shards.append(path)
                counts.append(shard["records"])
        self._ends = list(itertools.accumulate(counts))
        self._open_cache()

    def _open_cache(self) -> None:
        self._files: collections.OrderedDict[Path, tuple[Any, list[str]]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """All but open files."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_files", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_cache()

    def _open(self, path: Path) -> tuple[Any, list[str]]:
        """A shard and its keys; the last few used stay open."""
        with self._lock:
            if path not in self._files:
                file = safe_open(path, "np")
                self._files[path] = (file, json.loads(file.metadata()["keys"]))
                while len(self._files) > OPEN_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(path)
            return self._files[path]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:
        shard = bisect.bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        path = self._shards[shard]
        try:
            file, keys = self._open(path)
            names = self._names
            fields = {name: file.get_tensor(f"{row}/{name}") for name in names}
        except (OSError, SafetensorError) as error:
            raise UnreadableRecord(f"{path.name}:{row}: {error}") from error
        return Record(keys[row], self.name, (), fields)

    def keys(self) -> Iterator[str]:
        """The keys of the records, in their order.

        Raises:
          InputError: a shard cannot be read.
        """
        for path in self._shards:
            try:
                _, keys = self._open(path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path}: {error}; precompute it again") from error
            yield from keys

    @property
    def _names(self) -> list[str]:
        """Names of the arrays; every record has all of them."""
        return [name for name, _ in next(iter(self.shapes))]
