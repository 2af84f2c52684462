"""GEdit-Bench (Liu et al. 2025): users' edits in eleven groups, in English and Chinese.

Its scorer reads ``SAVE/MODEL/fullset/GROUP/LANGUAGE/KEY.png``, the edit, and ``KEY_SRCIMG.png`` beside it, its source;
a pair that lacks either is left out of the score.  Languages are ``en`` and ``cn``.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.fields import Field
from mammoth_jax.data.parquet import Parquet
from mammoth_jax.data.record import UnreadableRecord
from mammoth_jax.evals.jobs import Job, Layout, Request, SourcePicture
from mammoth_jax.evals.published.prompt_files import (
    as_file_name,
    check_distinct,
    check_records,
    read_json,
    read_json_lines,
    source_picture,
)

SOURCE = (
    "the parquet files of https://huggingface.co/datasets/stepfun-ai/GEdit-Bench (a file or their folder)"
)
SCORER = "run_gedit_score.py of Step1X-Edit: VIEScore; say which judge, GPT-4.1 or Qwen2.5-VL-72B-AWQ"
LANGUAGES = ("en", "cn")
COLUMNS = ("key", "task_type", "instruction", "instruction_language")


def layout(
    prompts: Path,
    *,
    model_name: str = "mammoth-jax",
    language: str | None = None,
    images: Path | None = None,
    seed: int = 0,
) -> Layout:
    """An edit for every record, of the parquet files or of JSON with the same columns and ``input_image`` a path.

    Args:
      prompts: a parquet file, a folder of them, or a JSON list or lines.
      model_name: the name under which the scorer finds the edits.
      language: records of this one only.
      images: of JSON, the folder of the sources; by default that of the file.
      seed: of every edit.

    Raises:
      InputError: the file is none of GEdit's, or a source is not there.
    """
    root = f"{as_file_name(model_name, '--model-name')}/fullset"
    if prompts.is_dir() or prompts.suffix == ".parquet":
        if images is not None:
            raise InputError(f"--images {images}: the parquet files of {prompts} hold the pictures themselves")
        rows = _of_parquet(prompts)
    else:
        rows = _of_json(prompts, prompts.parent if images is None else images)
    jobs = []
    for record, source in rows:
        spoken = record["instruction_language"]
        if spoken not in LANGUAGES:
            raise InputError(f"prompt file {prompts}: instruction_language {spoken!r}; expected en or cn")
        if language is not None and spoken != language:
            continue
        group, key = (as_file_name(record[c], f"prompt file {prompts}") for c in ("task_type", "key"))
        stem = f"{root}/{group}/{spoken}/{key}"
        request = Request(record["instruction"], seed, source)
        jobs.append(Job(f"{stem}.png", (request,), copies={f"{stem}_SRCIMG.png": source}))
    if not jobs:
        raise InputError(f"prompt file {prompts} holds no instruction in {language}")
    check_distinct([job.file for job in jobs], prompts)
    return Layout(tuple(jobs))


def _of_json(file: Path, root: Path) -> list[tuple[Mapping[str, Any], SourcePicture]]:
    found = read_json_lines(file) if file.suffix == ".jsonl" else read_json(file)
    records = check_records(file, found if isinstance(found, list) else [], (*COLUMNS, "input_image"))
    return [(record, source_picture(root / record["input_image"])) for record in records]


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """A record or picture that cannot be read ends the run: its scorer would leave the pair out."""
    try:
        yield
    except UnreadableRecord as error:
        raise InputError(str(error)) from None


def _of_parquet(path: Path) -> list[tuple[Mapping[str, Any], SourcePicture]]:
    """The records; pictures are read from the files again when they are wanted.

    Raises:
      InputError: a file cannot be read: without its records the benchmark would be another one.
    """
    files = str(path / "*.parquet") if path.is_dir() else str(path)
    words = Parquet(files=(files,), picture="", fields=tuple(Field(name=c, column=c) for c in COLUMNS)).open()
    shown = Parquet(files=(files,), picture="input_image").open()
    for name, problem in words.problems.items():
        raise InputError(f"prompt file {name}: {problem}; download it again")

    def opened(number: int) -> Image.Image:
        with _readable():
            return Image.fromarray(shown[number].pictures[0].decode())

    with _readable():
        found = [words[number].fields for number in range(len(words))]
    records = check_records(path, found, COLUMNS)

    return [
        (record, SourcePicture(f"{path}:{number}", functools.partial(opened, number)))
        for number, record in enumerate(records)
    ]
