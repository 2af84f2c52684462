"""Arrays computed once for every record of a source (codes, latents), written into shards of safetensors.

Shard ``s`` holds what became of records ``s * shard_size`` to ``(s + 1) * shard_size`` of the original source, a row
for each of their pictures, under the originals' keys and the pictures' names (:func:`picture_key`): tensors
``ROW/NAME`` and, in the file's metadata, the rows' keys and the number of records left out.  A shard appears whole or
not at all, so an interrupted run goes on with the first shard that is missing; several hosts write different shards.
``manifest.json`` is written when all are there.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import prepare_output_folder, write_text_whole, write_whole
from mammoth_jax.data.position import HostShare

DESCRIPTION, MANIFEST = "description.json", "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What made arrays: its role (``mammothtok``, ``vae``) and the :func:`fingerprint` of its weights."""

    role: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What shards are made of: the source's name and length, the models, and in words how records became arrays
    (picture shape, mean and log variance or samples, number format).
    """

    source: str
    length: int
    shard_size: int
    models: tuple[Model, ...]
    contents: str

    def __post_init__(self) -> None:
        if self.length < 1 or self.shard_size < 1:
            raise InputError(
                f"shards of {self.shard_size} out of {self.length} records: both must be at least 1"
            )

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.length // self.shard_size)

    def records(self, shard: int) -> range:
        """Numbers of the original records of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.length))


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """A checksum of named weights: names, shapes, number formats and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{x.dtype.name}:{x.shape};".encode())
        digest.update(x.view(np.uint8).data if x.ndim else x.tobytes())
    return digest.hexdigest()[:16]


def picture_key(key: str, name: str) -> str:
    """The key of the row of a record's picture (``Record.named_pictures``); that of the only one is the record's."""
    return f"{key}\0{name}" if name else key


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"{shard:06}.safetensors"


def start_shards(folder: Path, description: Description) -> None:
    """Prepares a folder, or finds it prepared for the same description.

    Raises:
      InputError: it cannot be written, or holds shards of another description.
    """
    prepare_output_folder(folder)
    file = folder / DESCRIPTION
    if file.is_file():
        found = read_description(folder)
        if found != description:
            field = next(f for f, value in encode(description).items() if encode(found)[f] != value)
            raise InputError(
                f"{folder} holds shards of another run, with {field} {getattr(found, field)!r} instead of "
                f"{getattr(description, field)!r}; choose another folder"
            )
        return
    _write_json(file, encode(description))


def read_description(folder: Path) -> Description:
    """What the shards of a folder are made of.

    Raises:
      InputError: the folder holds no description.
    """
    try:
        return decode(Description, json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no folder of precomputed shards: {error}") from error


def missing_shards(folder: Path, description: Description, host: HostShare = HostShare()) -> Iterator[int]:
    """Shards of this host that are not there yet, in order; looked up as they are asked for."""
    for shard in range(description.shards):
        if host.owns(shard) and not shard_path(folder, shard).is_file():
            yield shard


def write_shard(
    folder: Path,
    shard: int,
    keys: Sequence[str],
    rows: Sequence[Mapping[str, np.ndarray]],
    left_out: int,
) -> None:
    """Writes a shard whole: the arrays of each picture that is in it, in the order of the originals.

    Raises:
      OSError: it cannot be written, as on a full disk.
    """
    if len(keys) != len(rows) or len(set(keys)) != len(keys):
        raise ValueError(f"{len(rows)} rows with {len(set(keys))} different keys of {len(keys)}")
    if len({tuple(sorted(row)) for row in rows}) > 1:
        raise ValueError("all rows must have the same arrays")
    tensors = {
        f"{i}/{name}": np.ascontiguousarray(x) for i, row in enumerate(rows) for name, x in row.items()
    }
    # Safetensors has no empty files: a shard in which nothing was readable holds one empty tensor.
    tensors = tensors or {"none": np.zeros(0, np.uint8)}
    metadata = {"keys": json.dumps(list(keys)), "left_out": str(left_out)}
    file = shard_path(folder, shard)

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # no OSError, whatever the system says
            raise OSError(f"{file}: {error}") from error

    write_whole(file, write)


def finish_shards(folder: Path) -> dict[str, Any]:
    """Writes and returns the manifest: of each shard its size in bytes, its records and how many were left out; and
    how many records have which shapes.

    Raises:
      InputError: shards are missing.
    """
    description = read_description(folder)
    missing = list(missing_shards(folder, description))
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {description.shards} shards are not written yet, the first: {missing[0]}"
        )
    shards, shapes = [], {}
    for shard in range(description.shards):
        path = shard_path(folder, shard)
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            records = len(json.loads(metadata["keys"]))
            of_row: dict[str, dict[str, Any]] = {}
            for name in file.keys():  # noqa: SIM118, it is no mapping
                row, _, array = name.partition("/")
                of_row.setdefault(row, {})[array] = file.get_slice(name).get_shape()
        for row in of_row.values() if records else ():
            written = json.dumps(row, sort_keys=True)
            shapes[written] = shapes.get(written, 0) + 1
        shards.append(
            {"bytes": path.stat().st_size, "records": records, "left_out": int(metadata["left_out"])}
        )
    if len({tuple(sorted(json.loads(s))) for s in shapes}) > 1:
        raise InputError(f"{folder}: shards hold different arrays; write them again into another folder")
    manifest = {
        **encode(description),
        "shards": shards,
        "shapes": [{"arrays": json.loads(s), "records": n} for s, n in sorted(shapes.items())],
    }
    _write_json(folder / MANIFEST, manifest)
    return manifest


def _write_json(file: Path, data: Any) -> None:
    write_text_whole(file, json.dumps(data, indent=1))
