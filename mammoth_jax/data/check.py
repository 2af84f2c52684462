"""Looks at samples of a source before a run does: missing files, broken pictures, empty text, sizes and lengths."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Example, Filtered, Place
from mammoth_jax.data.mixing import BlockShuffle, Shuffle
from mammoth_jax.data.record import EmptyText, MissingFile, OfFiles, UnreadablePicture, UnreadableRecord
from mammoth_jax.data.sample_tokens import TokenCount
from mammoth_jax.data.shard_writer import read_description
from mammoth_jax.data.sources import unique_names
from mammoth_jax.data.task_source import ExampleSource, TaskSource

KINDS: tuple[tuple[type[UnreadableRecord], str], ...] = (
    (MissingFile, "missing file"),
    (UnreadablePicture, "decode failure"),
    (EmptyText, "empty text"),
    (UnreadableRecord, "unreadable record"),
)
SIDES = (32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
"""Bounds of the classes of sizes: the side of a square of the same area, in pixels."""


@dataclasses.dataclass(frozen=True)
class SourceReport:
    """What a look at a source found.

    Attributes:
        bad: unreadable samples by kind; ``examples`` has the first message of each.
        filtered: samples left out by reason; they are no errors.
        sizes: pictures by the lower bound of their class; ``text_tokens`` and ``row_tokens`` likewise, in powers of 2.
        failed: why the source is not fit for a run, "" if it is.
    """

    name: str
    task: str
    records: int
    files: int
    bad_files: Mapping[str, str]
    read: int
    usable: int
    bad: Mapping[str, int]
    examples: Mapping[str, str]
    filtered: Mapping[str, int]
    sizes: Mapping[int, int]
    text_tokens: Mapping[int, int]
    row_tokens: Mapping[int, int]
    mean_row: float
    failed: str

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return dataclasses.asdict(self)


def check_sources(
    given: Sequence[tuple[str, TaskSource, float]], *, samples: int, count: TokenCount, seed: int = 0
) -> Iterator[SourceReport]:
    """Looks at sources, each with its place in the configuration and the share of it that may be unreadable.

    One that cannot be opened is reported under its place.
    """
    names: list[str] = []
    for place, config, share in given:
        try:
            source = config.open(_makers(config))
        except InputError as error:
            yield _unopened(place, config.task, str(error))
            continue
        names.append(source.name)
        name = unique_names(names)[-1]
        yield check_source(source, name, samples=samples, share=share, count=count, seed=seed)


def _makers(config: TaskSource) -> dict[str, str]:
    """The models that made a source's precomputed arrays: a run compares them with its own."""
    if config.encoded is None:
        return {}
    description = read_description(Path(config.encoded.path).expanduser())
    return {model.role: model.fingerprint for model in description.models}


def _unopened(name: str, task: str, why: str) -> SourceReport:
    """A source of which nothing can be read."""
    nothing: dict[Any, Any] = {}
    return SourceReport(
        name=name,
        task=task,
        records=0,
        files=0,
        bad_files=nothing,
        read=0,
        usable=0,
        bad=nothing,
        examples=nothing,
        filtered=nothing,
        sizes=nothing,
        text_tokens=nothing,
        row_tokens=nothing,
        mean_row=0.0,
        failed=why,
    )


def check_source(
    source: ExampleSource, name: str, *, samples: int, share: float, count: TokenCount, seed: int = 0
) -> SourceReport:
    """Reads ``samples`` of a source, in a random order, and decodes their pictures.

    ``share`` of the samples, and of the source's files, may be unreadable.
    """
    order = Shuffle(len(source), seed) if source.blocks is None else BlockShuffle(source.blocks, seed)
    bad, filtered = collections.Counter[str](), collections.Counter[str]()
    examples: dict[str, str] = {}
    sizes, text, row = (collections.Counter[int]() for _ in range(3))
    read = min(samples, len(source))
    total = 0
    for n in range(read):
        try:
            example = source.example(order[n][0], Place(f"{seed}/{name}/{n}"))
            shapes = decode_all(example)
            counts = count(example)
        except Filtered as error:
            filtered[error.reason] += 1
            continue
        except (UnreadableRecord, InputError) as error:  # a picture that no model takes is unreadable, too
            kind = next((name for cls, name in KINDS if isinstance(error, cls)), KINDS[-1][1])
            bad[kind] += 1
            examples.setdefault(kind, str(error))
            continue
        sizes.update(_class(math.sqrt(height * width), SIDES) for height, width in shapes)
        text[_power(counts.text)] += 1
        row[_power(counts.row)] += 1
        total += counts.row
    problems = dict(source.problems) if isinstance(source, OfFiles) else {}
    files = source.files if isinstance(source, OfFiles) else 1
    usable = read - bad.total() - filtered.total()
    failed = ""
    if bad.total() > share * read:
        failed = f"{bad.total()} of {read} samples are unreadable, more than the share of {share:g}"
    elif len(problems) > share * files:
        failed = f"{len(problems)} of {files} files are unreadable, more than the share of {share:g}"
    elif not usable:
        failed = f"none of {read} samples is left"
    return SourceReport(
        name=name,
        task=source.task,
        records=len(source),
        files=files,
        bad_files=problems,
        read=read,
        usable=usable,
        bad=dict(bad),
        examples=examples,
        filtered=dict(filtered),
        sizes=dict(sorted(sizes.items())),
        text_tokens=dict(sorted(text.items())),
        row_tokens=dict(sorted(row.items())),
        mean_row=total / max(usable, 1),
        failed=failed,
    )


def decode_all(example: Example) -> list[tuple[int, int]]:
    """Decodes every picture of an example; heights and widths.

    Raises:
      UnreadablePicture: one cannot be.
    """
    pictures = (*example.pictures, *(() if example.target is None else (example.target,)))
    return [picture.decode().shape[:2] for picture in pictures]


def _class(value: float, bounds: Sequence[int]) -> int:
    """The largest bound that is not above the value; 0 below all."""
    return max((bound for bound in bounds if bound <= value), default=0)


def _power(value: int) -> int:
    """The largest power of two that is not above the value."""
    return 1 << (value.bit_length() - 1) if value else 0
