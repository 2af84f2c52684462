"""Which files a list of patterns names: braces, globs, and files that were cut into parts."""

import glob
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mammoth_jax.core.errors import InputError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PART = re.compile(r"(.+)\.split\.(\d+)")


def expand_braces(pattern: str) -> list[str]:
    """``{000..012}`` and ``{a,b}`` written out, as a shell does; digits keep their zeros."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    span = _RANGE.fullmatch(found[1])
    if span:
        first, last = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") else 0
        step = 1 if last >= first else -1
        words = [f"{i:0{width}d}" for i in range(first, last + step, step)]
    else:
        words = found[1].split(",")
    return [
        out
        for word in words
        for out in expand_braces(pattern[: found.start()] + word + pattern[found.end() :])
    ]


def list_files(patterns: Sequence[str]) -> list[Path]:
    """The files of all patterns, in their order, those of a glob sorted, each once.

    Raises:
      InputError: a pattern names nothing, or a named file is missing.
    """
    found: dict[str, None] = {}
    missing = []
    for pattern in (os.path.expanduser(p) for given in patterns for p in expand_braces(given)):
        if os.path.isfile(pattern):
            found[pattern] = None
        elif matches := sorted(m for m in glob.glob(pattern, recursive=True) if os.path.isfile(m)):
            found.update(dict.fromkeys(matches))
        else:
            missing.append(pattern)
    if missing:
        raise InputError(f"{len(missing)} of the files named are missing, the first: {missing[0]}")
    if not found:
        raise InputError(f"no files named by {list(patterns)}")
    return [Path(name) for name in found]


def join_parts(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Files as tuples of their parts: ``x.tar.split.000``, ``.001``, ... are one file, any other is its own part.

    Raises:
      InputError: a part is missing.
    """
    groups: dict[Path, list[tuple[int, Path]]] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        whole = file.with_name(part[1]) if part else file
        groups.setdefault(whole, []).append((int(part[2]) if part else 0, file))
    for whole, parts in groups.items():
        numbers = sorted(number for number, _ in parts)
        if numbers != list(range(len(parts))):
            absent = next(i for i in itertools.count() if i not in numbers)
            raise InputError(f"{whole}: part {absent} is missing; it has parts {numbers}")
    return [tuple(file for _, file in sorted(parts)) for parts in groups.values()]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Paths from the folder that is common to all, with forward slashes: a name each, the same on any machine."""
    top = os.path.commonpath([p.parent for p in paths])
    return [os.path.relpath(p, top).replace(os.sep, "/") for p in paths]
