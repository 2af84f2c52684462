"""Which requests are drawn together: a few buckets of fixed shapes with little padding.

A program is compiled for each shape, and every row of a launch is as long as the longest.  So requests of similar
lengths share a bucket; lengths come from the ladders of ``buckets.py``.  Rows do not depend on each other, so that
pictures are the same however they are grouped.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence

from mammoth_jax.core.errors import InputError
from mammoth_jax.pipelines.buckets import (
    bucket,
    condition_bucket,
    latent_bucket,
    prompt_bucket,
    row_bucket,
    token_bucket,
)
from mammoth_jax.pipelines.picture_lengths import PictureLengths


@dataclasses.dataclass(frozen=True)
class BucketShape:
    """The sizes that a launch's programs are compiled for: those of :class:`PictureLengths`, padded.

    ``rows`` are pictures, ``prompts`` the rows of the prefill, ``seen`` the vision tokens of all of them.
    """

    rows: int
    prompts: int
    prompt: int
    seen: int
    visual: int
    text: int
    num_references: int
    reference: int
    target: int

    @property
    def decoded(self) -> int:
        """A row's length in the backbone."""
        return self.prompt + self.visual

    @property
    def diffused(self) -> int:
        """A row's length in the diffusion transformer, without queries."""
        return self.text + self.num_references * self.reference + self.target

    def holds(self, other: "BucketShape") -> bool:
        """Whether launches of the other shape fit into this one and run the same programs."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(mine >= its and bool(mine) == bool(its) for mine, its in pairs)


class KnownShapes(Collection[BucketShape]):
    """The shapes that have been drawn, whose programs are therefore compiled.

    It grows while pictures are drawn, and a plan prefers what it holds: the one thing about a pipeline that changes.
    Which shape a picture is drawn in says nothing about the picture.
    """

    def __init__(self, shapes: Iterable[BucketShape] = ()):
        self._shapes = set(shapes)

    def add(self, shape: BucketShape) -> None:
        """Remembers a shape."""
        self._shapes.add(shape)

    def __contains__(self, shape: object) -> bool:
        return shape in self._shapes

    def __iter__(self) -> Iterator[BucketShape]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclasses.dataclass(frozen=True)
class ShapePolicy:
    """How far requests are drawn together.

    Buckets are joined while there are more than ``max_buckets`` of them, and further while padding stays within
    ``padding``: fewer programs for a little more work.  One compilation of the released model costs about as much as
    a few pictures, hence a quarter.  Where padding stays within ``known_padding``, shapes that
    are known already then take the place of new ones.
    """

    max_buckets: int = 4
    padding: float = 0.25
    known_padding: float = 0.35


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Requests (by number) of one shape, launch by launch."""

    shape: BucketShape
    launches: tuple[tuple[int, ...], ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All of its requests."""
        return tuple(number for launch in self.launches for number in launch)


@dataclasses.dataclass(frozen=True)
class ShapePlan:
    """All requests in buckets; the paddings are shares of what the launches compute, empty rows included."""

    buckets: tuple[Bucket, ...]
    decoded_padding: float
    diffused_padding: float

    def __str__(self) -> str:
        lines = [f"{len(bucket.launches)} x {bucket.shape}" for bucket in self.buckets]
        paddings = f"padding: backbone {self.decoded_padding:.0%}, diffusion {self.diffused_padding:.0%}"
        return "\n".join([*lines, paddings])


def plan_shapes(
    lengths: Sequence[PictureLengths],
    *,
    batch_size: int = 16,
    shards: int = 1,
    known: Collection[BucketShape] = (),
    policy: ShapePolicy = ShapePolicy(),
) -> ShapePlan:
    """Groups requests into buckets, the same for the same arguments.

    Starts with a bucket for each distinct shape and joins, again and again, the two that cost the least padding.  Of
    what the policy allows it takes the plan with the fewest new shapes, and of these the one with the least padding.

    Args:
      lengths: what each request takes.
      batch_size: rows of a launch; a bucket of more requests has several launches of one shape.
      shards: over how many devices rows are spread.
      known: shapes whose programs are compiled.
      policy: when to stop.

    Raises:
      InputError: ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: at least 1 is needed")
    if not lengths:
        return ShapePlan((), 0.0, 0.0)
    useful = _Work(sum(x.decoded for x in lengths), sum(x.diffused for x in lengths))

    def join(members: Sequence[int]) -> Bucket:
        numbers, count = sorted(members), -(-len(members) // batch_size)
        cuts = [len(numbers) * i // count for i in range(count + 1)]
        launches = tuple(tuple(numbers[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
        shape = _shape([[lengths[i] for i in launch] for launch in launches], shards)
        return Bucket(shape, launches)

    alike: dict[tuple, list[int]] = {}
    for number, each in enumerate(lengths):
        alike.setdefault(_row(_shape([[each]], 1)), []).append(number)
    buckets = [join(members) for members in alike.values()]
    joined = {(a, b): join(a.members + b.members) for i, a in enumerate(buckets) for b in buckets[i + 1 :]}
    levels: list[list[Bucket]] = []
    while True:
        work = _total(buckets)
        if levels and max(work.padding(useful)) > policy.padding:
            break
        if len(buckets) <= policy.max_buckets:
            ordered = sorted(buckets, key=lambda bucket: bucket.launches)
            levels.append(_in_known_shapes(ordered, known, useful, policy))
        if not joined:
            break
        after = {pair: work - _work(pair[0]) - _work(pair[1]) + _work(new) for pair, new in joined.items()}
        pair: tuple[Bucket, Bucket] = min(
            after, key=lambda p: (sum(after[p].padding(useful)), p[0].launches, p[1].launches)
        )
        new = joined[pair]
        buckets = [bucket for bucket in buckets if bucket not in pair]
        joined = {p: made for p, made in joined.items() if pair[0] not in p and pair[1] not in p}
        joined |= {(bucket, new): join(bucket.members + new.members) for bucket in buckets}
        buckets.append(new)

    def price(buckets: Sequence[Bucket]) -> tuple[int, float]:
        new = {bucket.shape for bucket in buckets} - set(known)
        return len(new), sum(_total(buckets).padding(useful))

    chosen = min(levels, key=price)
    return ShapePlan(tuple(chosen), *_total(chosen).padding(useful))


def _in_known_shapes(
    buckets: Sequence[Bucket], known: Collection[BucketShape], useful: "_Work", policy: ShapePolicy
) -> list[Bucket]:
    """Puts buckets of new shapes, in order, into the known ones that cost the least, as far as the policy allows."""
    out = list(buckets)
    for i, each in enumerate(buckets):
        if each.shape in known:
            continue
        tries = [
            [*out[:i], dataclasses.replace(each, shape=shape), *out[i + 1 :]]
            for shape in sorted(known, key=dataclasses.astuple)
            if shape.holds(each.shape)
        ]
        best = min(tries, key=lambda buckets: sum(_total(buckets).padding(useful)), default=out)
        if max(_total(best).padding(useful)) <= policy.known_padding:
            out = best
    return out


@dataclasses.dataclass(frozen=True)
class _Work:
    """Tokens of the backbone and of the diffusion transformer."""

    decoded: int
    diffused: int

    def __add__(self, other: "_Work") -> "_Work":
        return _Work(self.decoded + other.decoded, self.diffused + other.diffused)

    def __sub__(self, other: "_Work") -> "_Work":
        return _Work(self.decoded - other.decoded, self.diffused - other.diffused)

    def padding(self, useful: "_Work") -> tuple[float, float]:
        """The shares that are not ``useful``; 0 where nothing is computed."""
        return _share(useful.decoded, self.decoded), _share(useful.diffused, self.diffused)


def _share(useful: int, padded: int) -> float:
    return 1 - useful / padded if padded else 0.0


def _total(buckets: Sequence[Bucket]) -> _Work:
    return sum(map(_work, buckets), _Work(0, 0))


def _work(bucket: Bucket) -> _Work:
    rows = len(bucket.launches) * bucket.shape.rows
    return _Work(rows * bucket.shape.decoded, rows * bucket.shape.diffused)


def _row(shape: BucketShape) -> tuple:
    """What makes two requests alike."""
    return shape.prompt, shape.visual, shape.text, shape.num_references, shape.reference, shape.target


def _shape(launches: Sequence[Sequence[PictureLengths]], shards: int) -> BucketShape:
    """The shape that holds every launch; what none of them has stays 0."""
    members = [each for launch in launches for each in launch]
    prompt = max(max(each.prompt, each.negative) for each in members)
    text = max(max(each.text, each.negative) for each in members)
    padded = prompt_bucket(prompt, pictures=any(each.shows for each in members))
    visual, target = max(each.visual for each in members), max(each.target for each in members)
    reference = max((n for each in members for n in each.references), default=0)
    seen = max(sum({each.reads[:1]: each.seen for each in launch}.values()) for launch in launches)
    return BucketShape(
        rows=row_bucket(max(map(len, launches)), shards),
        prompts=bucket(max(len({read for each in launch for read in each.reads}) for launch in launches)),
        prompt=padded,
        seen=token_bucket(seen) if seen else 0,
        visual=token_bucket(visual) if visual else 0,
        text=min(condition_bucket(text), padded) if target else 0,
        num_references=max(len(each.references) for each in members),
        reference=latent_bucket(reference) if reference else 0,
        target=latent_bucket(target) if target else 0,
    )
