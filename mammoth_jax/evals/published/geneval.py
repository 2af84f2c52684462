"""GenEval (Ghosh et al. 2023): whether the objects asked for are there, in number, colour and place.

Its scorer walks the folders of ``OUT`` whose names are digits: ``00000/metadata.jsonl``, the prompt's record, and the
PNG files of ``00000/samples`` whose names are digits.  The score is a mean over pictures; four of each prompt.
"""

import json
from pathlib import Path

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import Job, Layout, Request
from mammoth_jax.evals.published.prompt_files import check_records, read_json_lines

SOURCE = "evaluation_metadata.jsonl of https://github.com/djghosh13/geneval (prompts/)"
SCORER = "evaluate_images.py of GenEval: Mask2Former Swin-S of mmdetection 2 and OpenCLIP ViT-L/14, on CUDA"
NUM_IMAGES = 4


def layout(prompts: Path, *, num_images: int = NUM_IMAGES, seed: int = 0) -> Layout:
    """Pictures of all prompts of ``evaluation_metadata.jsonl``, or of rewritten ones in the same records.

    Raises:
      InputError: the file is none of GenEval's.
    """
    records = check_records(prompts, read_json_lines(prompts), ("tag", "prompt"))
    for number, record in enumerate(records):
        if not isinstance(record.get("include"), list):
            raise InputError(f"prompt file {prompts}, record {number}: no list 'include'")
    return Layout(
        tuple(
            Job(
                f"{number:05d}/samples/{image:04d}.png",
                (Request(record["prompt"], seed + image),),
                texts={f"{number:05d}/metadata.jsonl": json.dumps(record, ensure_ascii=False) + "\n"},
            )
            for number, record in enumerate(records)
            for image in range(num_images)
        )
    )
