"""Pictures to draw into files: what is wanted, and drawing what is not there yet.

A benchmark's layout is a list of jobs, one a file.  A job whose file is there and readable is done; files appear whole,
so that drawing can be stopped at any moment and taken up again.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from mammoth_jax.core.files import write_text_whole
from mammoth_jax.core.png import write_png
from mammoth_jax.core.progress import Progress


@dataclasses.dataclass(frozen=True)
class SourcePicture:
    """A picture to be edited: a name, equal names being the same picture, and how to open it."""

    name: str
    open: Callable[[], Image.Image] = dataclasses.field(compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Request:
    """One picture: drawn from words and a seed, and from a picture where there is one to edit."""

    prompt: str
    seed: int
    source: SourcePicture | None = None


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture that has been drawn, the settings that decided it, and what was written before it was drawn."""

    image: Image.Image
    settings: Mapping[str, Any]
    reasoning: str | None = None


class Draw(Protocol):
    """Draws requests: yields the number of each with its picture as they are done, in any order."""

    def check(self, requests: Sequence[Request]) -> None:
        """Raises an :class:`InputError` for what cannot be drawn, before any is; opens no source."""
        ...

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, Drawn]]:
        """See above."""
        ...


def alone(images: Sequence[Image.Image]) -> Image.Image:
    """The one picture of a job."""
    (image,) = images
    return image


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture of a benchmark's output.

    Attributes:
        file: its name, relative to the output's folder, as are all others.
        requests: what it is composed of.
        compose: how.
        texts: files of text that belong to it; jobs may share one.
        copies: pictures that are written beside it as they are, as PNG.
    """

    file: str
    requests: tuple[Request, ...]
    compose: Callable[[Sequence[Image.Image]], Image.Image] = alone
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    copies: Mapping[str, SourcePicture] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a benchmark's scorer reads: pictures, and files of text that name them, made from the output's folder once
    all of these are there."""

    jobs: tuple[Job, ...]
    results: Mapping[str, Callable[[Path], str]] = dataclasses.field(default_factory=dict)

    def first(self, count: int) -> "Layout":
        """The first pictures alone, to try a benchmark out."""
        return Layout(self.jobs[:count])


def is_picture(file: Path) -> bool:
    """Whether a file is there and is a whole picture."""
    try:
        with Image.open(file) as picture:
            picture.verify()
    except Exception:  # Pillow's decoders raise whatever a broken file makes them stumble over
        return False
    return True


def write_layout(layout: Layout, out: Path, draw: Draw, progress: Progress) -> int:
    """Writes all that is missing of a layout; returns how many pictures were drawn into files."""
    drawn = draw_jobs(layout.jobs, out, draw, progress)
    for file, text in layout.results.items():
        write_text_whole(out / file, text(out))
    return drawn


def draw_jobs(jobs: Iterable[Job], out: Path, draw: Draw, progress: Progress) -> int:
    """Draws the jobs whose files are not there, what belongs to them first; returns how many they were."""
    jobs = list(jobs)
    for job in jobs:
        _write_beside(job, out)
    missing = [job for job in jobs if not is_picture(out / job.file)]
    owners = [(number, place) for number, job in enumerate(missing) for place in range(len(job.requests))]
    parts: list[dict[int, Drawn]] = [{} for _ in missing]
    done = len(jobs) - len(missing)
    if not missing:
        return 0
    for request, drawn in draw([request for job in missing for request in job.requests]):
        number, place = owners[request]
        job, own = missing[number], parts[number]
        own[place] = drawn
        if len(own) < len(job.requests):
            continue
        _write(job, [own[i] for i in range(len(own))], out)
        parts[number] = {}
        done += 1
        progress("pictures", done, len(jobs))
    return len(missing)


def _write_beside(job: Job, out: Path) -> None:
    """The texts and copies of a job that are not there."""
    for file, text in job.texts.items():
        if not (out / file).is_file():
            _folder_of(out / file)
            write_text_whole(out / file, text)
    for file, source in job.copies.items():
        if not is_picture(out / file):
            _folder_of(out / file)
            write_png(source.open(), out / file, {"source": source.name})


def _write(job: Job, parts: Sequence[Drawn], out: Path) -> None:
    """The file of a job, and beside it, as ``.txt``, what was written before drawing."""
    file = out / job.file
    _folder_of(file)
    reasonings = [part.reasoning for part in parts if part.reasoning is not None]
    if reasonings:
        write_text_whole(file.with_suffix(".txt"), "\n".join(reasonings))
    settings = parts[0].settings if len(parts) == 1 else {"parts": [dict(part.settings) for part in parts]}
    write_png(job.compose([part.image for part in parts]), file, settings)


def _folder_of(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
