"""Files that appear whole or not at all, and JSON objects read from them."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls ``write`` with a temporary name in the folder of ``path``, then renames to ``path``.

    If ``write`` fails, the temporary file is removed and what ``path`` held before is untouched.

    Raises:
      OSError: the file cannot be written; the error names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text_whole(path: Path, text: str) -> None:
    """:func:`write_whole` of a text, in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def disk_reason(error: Exception) -> str:
    """What the system refused, in one line, where TensorStore's long message (or another's) tells of it."""
    text = " ".join(str(error).split())
    found = re.search(r"([^:]+?) \[os_error_code", text)
    return (found.group(1).strip() if found else text[:200]) or type(error).__name__


def prepare_output_folder(folder: Path) -> None:
    """Creates the folder if need be and makes sure that files can be written into it, before any work is done.

    Raises:
      InputError: it cannot be created or written.
    """
    probe = folder / f".probe.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to output folder {folder}: {error.strerror or error}; choose a folder that you may write to"
        ) from error


def prepare_output_file(file: Path) -> None:
    """:func:`prepare_output_folder` of the folder that a file goes into.

    Raises:
      InputError: the folder cannot be created or written, or ``file`` is a folder itself.
    """
    prepare_output_folder(file.parent)
    if file.is_dir():
        raise InputError(f"cannot write to output file {file}: it is a folder; give the name of a file")


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      InputError: it holds something else.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not a JSON file ({error}); copy the file again") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{file}: expected a JSON object, found {type(values).__name__}; copy the file again"
        )
    return values
