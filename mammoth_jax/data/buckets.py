"""Which shapes batches have, how often each is served, and how records are brought to them."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import UInt8
from mammoth_jax.data.decoding import TooSmall, Transform
from mammoth_jax.data.mixing import Branch, Leaf, Order, shares, whole
from mammoth_jax.data.precomputed import PrecomputedSource
from mammoth_jax.data.record import Picture, Record, Source, UnreadableRecord
from mammoth_jax.data.schedule import MeasuredSchedule, Schedule
from mammoth_jax.data.shapes import AspectBuckets, FixedShape, cover, nearest_shape, upscale


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsStored:
    """Arrays of precomputed shards as they are, records of equal shapes together; ``arrays`` names those wanted."""

    arrays: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.arrays:
            raise InputError("AsStored: name at least one array")


Shapes = FixedShape | AspectBuckets | AsStored


def first_picture(record: Record) -> Picture:
    """A record's first picture.

    Raises:
      UnreadableRecord: it has none.
    """
    if not record.pictures:
        raise UnreadableRecord(f"{record.source}/{record.key}: no picture")
    return record.pictures[0]


@dataclasses.dataclass(frozen=True)
class ToShape:
    """The first picture of a record as ``picture``, in the nearest of ``shapes``."""

    config: FixedShape | AspectBuckets
    shapes: tuple[tuple[int, int], ...]

    def __call__(self, record: Record, place: tuple[float, float]) -> tuple[int, dict[str, np.ndarray]]:
        """See :class:`Transform`."""
        bucket, pixels = self.shaped(first_picture(record), place)
        return bucket, {"picture": pixels}

    def shaped(
        self, picture: Picture, place: tuple[float, float]
    ) -> tuple[int, UInt8[np.ndarray, "rows cols 3"]]:
        """The number of the shape that a picture goes to, and its pixels there.

        Raises:
          UnreadableRecord: it cannot be decoded.
          TooSmall: it would have to grow more than allowed.
        """
        pixels = picture.decode()
        height, width = pixels.shape[:2]
        bucket = nearest_shape(height, width, self.shapes)
        if upscale(height, width, self.shapes[bucket]) > self.config.max_upscale:
            raise TooSmall
        random = self.config.crop == "random"
        return bucket, cover(pixels, self.shapes[bucket], place if random else (0.5, 0.5))


@dataclasses.dataclass(frozen=True)
class EachToShape:
    """Every picture of a record under its name (``Record.named_pictures``), but for those that are too small."""

    one: ToShape

    def __call__(self, record: Record, place: tuple[float, float]) -> tuple[int, dict[str, np.ndarray]]:
        """See :class:`Transform`; the arrays have shapes of their own, the number says nothing."""
        named, arrays = record.named_pictures() or {"": first_picture(record)}, {}
        for name, picture in named.items():
            with contextlib.suppress(TooSmall):
                arrays[name] = self.one.shaped(picture, place)[1]
        if not arrays:
            raise TooSmall
        return 0, arrays


@dataclasses.dataclass(frozen=True)
class Stored:
    """The named arrays of a record; ``shapes`` are those that occur together, in the order of the names."""

    names: tuple[str, ...]
    shapes: tuple[tuple[tuple[int, ...], ...], ...]

    def __call__(self, record: Record, place: tuple[float, float]) -> tuple[int, dict[str, np.ndarray]]:
        """See :class:`Transform`."""
        arrays = {name: record.fields[name] for name in self.names}
        return self.shapes.index(tuple(x.shape for x in arrays.values())), arrays


def plan_shapes(
    config: Shapes, sources: Sequence[Source], tree: Leaf | Branch, order: Order
) -> tuple[Transform, tuple[Any, ...], Schedule]:
    """How records are brought to shape, all shapes, and how often each is served: as given, as it occurs among the
    pictures, or as stored.

    Raises:
      InputError: pictures are wanted of arrays or arrays of pictures, or none of the first pictures can be read.
    """
    for source in sources:
        stored = isinstance(source, PrecomputedSource)
        if stored != isinstance(config, AsStored):
            holds, wanted = ("arrays", "AsStored") if stored else ("pictures", "FixedShape or AspectBuckets")
            raise InputError(f"source {source.name} holds {holds}; give the data a shape of type {wanted}")
    if isinstance(config, AsStored):
        found = _stored_shapes(config, sources, tree)
        shapes = tuple(sorted(found))
        return Stored(config.arrays, shapes), shapes, Schedule(whole([found[shape] for shape in shapes]))
    if isinstance(config, AspectBuckets) and not config.weights:
        shapes = config.shapes()
        probe = functools.partial(_shape_of, sources, order, shapes)
        return ToShape(config, shapes), shapes, MeasuredSchedule(len(shapes), probe, config.measure)
    weights = config.weights if isinstance(config, AspectBuckets) else (1.0,)
    shapes = tuple(shape for shape, weight in zip(config.shapes(), weights, strict=True) if weight)
    return ToShape(config, shapes), shapes, Schedule(whole([weight for weight in weights if weight]))


def _stored_shapes(
    config: AsStored, sources: Sequence[Source], tree: Leaf | Branch
) -> dict[tuple[tuple[int, ...], ...], float]:
    """The part of the order that has each combination of shapes."""
    found: dict[tuple[tuple[int, ...], ...], float] = {}
    for number, share in shares(tree).items():
        source = sources[number]
        assert isinstance(source, PrecomputedSource)
        for arrays, records in source.shapes.items():
            known = dict(arrays)
            missing = [name for name in config.arrays if name not in known]
            if missing:
                raise InputError(f"source {source.name}: no array {missing[0]!r}; it has {sorted(known)}")
            shape = tuple(known[name] for name in config.arrays)
            found[shape] = found.get(shape, 0.0) + float(share) * records / len(source)
    return found


def _shape_of(
    sources: Sequence[Source], order: Order, shapes: tuple[tuple[int, int], ...], number: int
) -> int | None:
    """The shape of picture ``number`` of the order, from its size alone; None if it cannot be read."""
    draw = order[number]
    try:
        return nearest_shape(*first_picture(sources[draw.source][draw.index]).size(), shapes)
    except UnreadableRecord:
        return None
