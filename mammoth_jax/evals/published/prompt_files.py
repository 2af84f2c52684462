"""Reading benchmarks' own files: JSON with the columns that are needed, and names that become file names."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import SourcePicture
from mammoth_jax.processing.vision import load_picture, over_white


def read_text(file: Path) -> str:
    """A UTF-8 text.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"prompt file {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"prompt file {file}: byte {error.start} is not UTF-8") from None


def read_json(file: Path) -> Any:
    """The JSON value of a file.

    Raises:
      InputError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"prompt file {file}: no JSON ({error})") from None


def read_json_lines(file: Path) -> list[Any]:
    """The JSON value of each line that is not blank.

    Raises:
      InputError: the file cannot be read, or a line is no JSON.
    """
    found = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise InputError(f"prompt file {file}, line {number}: no JSON ({error})") from None
    return found


def check_records(file: Path, records: Iterable[Any], columns: Sequence[str]) -> list[Mapping[str, Any]]:
    """The records, each with a text in each of these columns.

    Raises:
      InputError: there are none, or one has not; it is named by its number.
    """
    found = list(records)
    if not found:
        raise InputError(f"prompt file {file} holds no prompt")
    for number, record in enumerate(found):
        for column in columns:
            if not isinstance(record, Mapping) or not isinstance(record.get(column), str):
                raise InputError(f"prompt file {file}, record {number}: no text {column!r}")
    return found


def as_file_name(name: str, of: str) -> str:
    """The name, which is to become that of a file or folder.

    Raises:
      InputError: it leads elsewhere; begins with ``of``, where the name is from.
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise InputError(f"{of}: {name!r} cannot be the name of a file")
    return name


def check_distinct(files: Sequence[str], source: Path) -> None:
    """Raises InputError where two pictures would have one file."""
    known: set[str] = set()
    for name in files:
        if name in known:
            raise InputError(f"prompt file {source}: two of its records are drawn into {name}")
        known.add(name)


def source_picture(file: Path) -> SourcePicture:
    """A picture file to be edited, opened as RGB when it is drawn.

    Raises:
      InputError: there is no such file.
    """
    if not file.is_file():
        raise InputError(f"source picture {file}: no such file; say where the pictures are with --images")

    def opened() -> Image.Image:
        return over_white(load_picture(file))

    return SourcePicture(str(file), opened)
