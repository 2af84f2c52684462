"""ImgEdit-Bench, the single turns (Ye et al. 2025): a picture and an instruction, of nine kinds.

Its scorer reads ``OUT/KEY.png`` for every key of ``basic_edit.json`` ({KEY: {"id", "prompt", "edit_type"}}) and finds
the source below a folder of its own by ``id``.
"""

from pathlib import Path

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import Job, Layout, Request
from mammoth_jax.evals.published.prompt_files import (
    as_file_name,
    check_distinct,
    check_records,
    read_json,
    source_picture,
)

SOURCE = (
    "basic_edit.json of https://github.com/PKU-YuanGroup/ImgEdit (Benchmark/Basic), with its pictures, Benchmark.tar "
    "of https://huggingface.co/datasets/sysuyy/ImgEdit (--images .../singleturn)"
)
SCORER = "basic_bench.py of ImgEdit: a GPT is the judge; say which one, GPT-4o or GPT-4.1"


def layout(prompts: Path, *, images: Path | None = None, seed: int = 0) -> Layout:
    """An edit for every record; ``images`` is the folder of the sources, by default that of the prompt file.

    Raises:
      InputError: the file is none of ImgEdit's, or a source is not there.
    """
    found = read_json(prompts)
    if not isinstance(found, dict):
        raise InputError(f"prompt file {prompts}: expected an object of records, as {SOURCE}")
    records = check_records(prompts, found.values(), ("id", "prompt", "edit_type"))
    root = prompts.parent if images is None else images
    jobs = tuple(
        Job(
            f"{as_file_name(key, f'prompt file {prompts}')}.png",
            (Request(record["prompt"], seed, source_picture(root / record["id"])),),
        )
        for key, record in zip(found, records, strict=True)
    )
    check_distinct([job.file for job in jobs], prompts)
    return Layout(jobs)
