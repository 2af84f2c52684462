"""The files of the small world's benchmark: what is drawn for which sample."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mammoth_jax.evals.jobs import Job, Request, SourcePicture
from mammoth_jax.evals.synthetic.samples import Sample, Task

IMAGES_OF: Mapping[Task, int] = {"edit-caption": 1}
"""Images of each prompt where they are not as many as asked for: a baseline of 700 prompts needs no more."""


def num_images_of(task: Task, num_images: int) -> int:
    """How many pictures each prompt of a task gets."""
    return min(num_images, IMAGES_OF.get(task, num_images))


def files(sample: Sample, num_images: int) -> list[str]:
    """The pictures of a sample."""
    return [f"{sample.stem}_{image:02d}.png" for image in range(num_images_of(sample.task, num_images))]


def jobs(samples: Iterable[Sample], num_images: int, seed: int) -> list[Job]:
    """All pictures to draw.  Image ``i`` of sample ``n`` of its kind has seed ``seed + n num_images + i``."""
    return [
        Job(
            file,
            (Request(sample.prompt, seed + sample.number * num_images + image, source(sample)),),
            copies=before(sample) if image == 0 else {},
        )
        for sample in samples
        for image, file in enumerate(files(sample, num_images))
    ]


def source(sample: Sample) -> SourcePicture | None:
    """What an edit starts from."""
    return SourcePicture(sample.stem, functools.partial(sample.picture, 0)) if sample.task == "edit" else None


def before(sample: Sample) -> dict[str, SourcePicture]:
    """The picture that is edited, beside its edits."""
    shown = source(sample)
    return {} if shown is None else {f"{sample.stem}_before.png": shown}


def prompt_list(samples: Sequence[Sample]) -> str:
    """All samples of a task, one a line."""
    return "".join(json.dumps(sample.to_dict(), ensure_ascii=False) + "\n" for sample in samples)


def prompt_list_file(out: Path, task: Task) -> Path:
    """Where it is written."""
    return out / task / "prompts.jsonl"
