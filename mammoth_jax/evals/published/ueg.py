"""RealUnify, understanding that enhances generation, direct (2025): prompts that need knowledge or thought to be drawn.

Its judge reads ``UEG_direct.json`` with the path of the picture as ``generated_image`` of every record.  Paths are
absolute: the judge opens them from wherever it runs.
"""

import json
from pathlib import Path

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import Job, Layout, Request
from mammoth_jax.evals.published.prompt_files import check_records, read_json

SOURCE = "UEG_direct.json of https://huggingface.co/datasets/DogNeverSleep/RealUnify"
SCORER = "RealUnify's yes-no questions, put to a judge of your own; say which one, Gemini 2.5 Pro is advised"
FILE = "UEG_direct.json"


def layout(prompts: Path, *, seed: int = 0) -> Layout:
    """A picture for every record, ``images/NUMBER.png``, and the records with their paths once all are drawn.

    Raises:
      InputError: the file is none of RealUnify's.
    """
    found = read_json(prompts)
    if not isinstance(found, list):
        raise InputError(f"prompt file {prompts}: expected a list of records, as {SOURCE}")
    records = check_records(prompts, found, ("prompt",))
    files = [f"images/{number:04d}.png" for number in range(len(records))]
    jobs = tuple(
        Job(file, (Request(record["prompt"], seed),)) for file, record in zip(files, records, strict=True)
    )

    def answered(out: Path) -> str:
        drawn = [
            {**record, "generated_image": str((out / file).resolve())}
            for record, file in zip(records, files, strict=True)
        ]
        return json.dumps(drawn, indent=1, ensure_ascii=False) + "\n"

    return Layout(jobs, results={FILE: answered})
