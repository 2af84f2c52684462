"""``run.json``: how pictures were made, beside them, so that no folder mixes pictures of different settings."""

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from mammoth_jax import __version__
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_text_whole

FILE = "run.json"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")


def open_run(
    out: Path, settings: Mapping[str, Any], session: Mapping[str, Any], pictures: Iterable[str] = ()
) -> None:
    """Begins a run in a folder, or goes on with the one that is there.

    Args:
      out: the folder.
      settings: everything that decides the pictures; JSON values.
      session: what may differ from one start to the next, such as the batch size; kept for each start.  One with a
        ``limit`` draws nothing that a finished run lacks.
      pictures: the files that the run will write.

    Raises:
      InputError: the folder holds a run of other settings, or pictures without a run.
    """
    file, settings = out / FILE, json.loads(json.dumps(settings))
    if file.exists():
        record = _read(file)
        _check_same(record["settings"], settings, out)
    else:
        there = next((name for name in pictures if (out / name).exists()), None)
        if there is not None:
            raise InputError(
                f"{out} holds {there} but no {FILE}, so nobody knows how it was drawn; choose a new folder"
            )
        record = {"settings": settings, "starts": []}
    start = {"date": _now(), **session, "device": _device(), "versions": versions()}
    record["starts"] = [*record["starts"], start]
    if session.get("limit") is None or "finished" not in record:
        record["finished"] = None
    _write(file, record)


def finish_run(out: Path, results: Mapping[str, Any]) -> None:
    """Notes that everything has been written, when, and what came out."""
    file = out / FILE
    _write(file, _read(file) | {"finished": _now(), **results})


def versions() -> dict[str, str]:
    """Of this package and those that numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"mammoth_jax": __version__, "python": platform.python_version(), **found}


def digest(prompts: Path) -> str:
    """The SHA-256 of a prompt file; of a folder, over its files by name.

    Raises:
      InputError: it cannot be read.
    """
    whole = hashlib.sha256()
    try:
        inside = sorted(file for file in prompts.iterdir() if file.is_file()) if prompts.is_dir() else None
        for file in [prompts] if inside is None else inside:
            with file.open("rb") as content:
                whole.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise InputError(f"prompts {prompts}: {error.strerror or error}") from None
    return whole.hexdigest()


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raises InputError where settings differ; names each."""
    differ = [
        f"{name} was {json.dumps(before.get(name), ensure_ascii=False)}, "
        f"now {json.dumps(now.get(name), ensure_ascii=False)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differ:
        raise InputError(
            f"{out} holds a run with other settings: {'; '.join(differ)}; use the same or a new folder"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(record["settings"], dict) and isinstance(record["starts"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise InputError(f"{file} is no record of a run; choose a new folder, or restore the file") from None
    return record


def _write(file: Path, record: Mapping[str, Any]) -> None:
    write_text_whole(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _device() -> str:
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"
