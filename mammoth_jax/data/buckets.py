"""Which shapes batches have, how often each is served, and how records are brought to them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import TooSmall, Transform
from mammoth_jax.data.mixing import Branch, Leaf, Order, shares
from mammoth_jax.data.precomputed import PrecomputedSource
from mammoth_jax.data.record import Record, Source, UnreadableRecord
from mammoth_jax.data.shapes import AspectBuckets, FixedShape, cover, nearest_shape, upscale


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsStored:
    """Arrays of precomputed shards as they are, records of equal shapes together; ``arrays`` names those wanted."""

    arrays: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.arrays:
            raise InputError("AsStored: name at least one array")


Shapes = FixedShape | AspectBuckets | AsStored


@dataclasses.dataclass(frozen=True)
class ToShape:
    """The first picture of a record as ``picture``, in the nearest of ``shapes``."""

    config: FixedShape | AspectBuckets
    shapes: tuple[tuple[int, int], ...]

    def __call__(self, record: Record, place: tuple[float, float]) -> tuple[int, dict[str, np.ndarray]]:
        """See :class:`Transform`."""
        pixels = record.pictures[0].decode()
        height, width = pixels.shape[:2]
        bucket = nearest_shape(height, width, self.shapes)
        if upscale(height, width, self.shapes[bucket]) > self.config.max_upscale:
            raise TooSmall
        random = self.config.crop == "random"
        return bucket, {"picture": cover(pixels, self.shapes[bucket], place if random else (0.5, 0.5))}


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
) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """All shapes and how often each is served: as given, as it occurs among the first pictures, or as stored.

    Raises:
      InputError: pictures are wanted of arrays or arrays of pictures, or none of the first pictures can be read.
    """
    for source in sources:
        stored = isinstance(source, PrecomputedSource)
        if stored != isinstance(config, AsStored):
            holds, wanted = ("arrays", "AsStored") if stored else ("pictures", "FixedShape or AspectBuckets")
            raise InputError(f"source {source.name} holds {holds}; give the data a shape of type {wanted}")
    if isinstance(config, FixedShape):
        return config.shapes(), (1.0,)
    if isinstance(config, AspectBuckets):
        return config.shapes(), config.weights or _measured(config, sources, order)
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
    shapes = tuple(sorted(found))
    return shapes, tuple(found[shape] for shape in shapes)


def _measured(config: AspectBuckets, sources: Sequence[Source], order: Order) -> tuple[float, ...]:
    shapes = config.shapes()
    found = [0] * len(shapes)
    problem = ""
    for n in range(config.measure):
        draw = order[n]
        try:
            height, width = sources[draw.source][draw.index].pictures[0].size()
        except UnreadableRecord as error:
            problem = problem or str(error)
            continue
        found[nearest_shape(height, width, shapes)] += 1
    if not any(found):
        raise InputError(f"none of the first {config.measure} pictures can be read: {problem}")
    return tuple(map(float, found))


def transform(config: Shapes, shapes: tuple[Any, ...]) -> Transform:
    """How records are brought to some of the planned shapes."""
    return Stored(config.arrays, shapes) if isinstance(config, AsStored) else ToShape(config, shapes)
