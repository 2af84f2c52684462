"""A folder that appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mammoth_jax.core.errors import InputError


@contextlib.contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name at the end; removed if the block fails.

    Raises:
      InputError: ``folder`` exists already or cannot be written.
    """
    target = Path(folder)
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} exists already; choose another name or remove it")
    temporary = target.with_name(f".{target.name}.incomplete-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}; choose a writable folder"
        ) from error
    try:
        yield temporary
        os.rename(temporary, target)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}; make room there or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
