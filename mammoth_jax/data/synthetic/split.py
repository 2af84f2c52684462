"""Which combinations are never trained on.

Each list is by construction, from the words themselves, and does not depend on a seed.  Every shape, colour, count,
relation and letter is in the train split many times: only the combination is new.

===========================  ==========================================================  =========
combination                  held out                                                    share
===========================  ==========================================================  =========
shape and colour             two colours of each shape; each colour at two shapes        20 of 100
shape and count (1 to 6)     one or two counts above 1 of each shape                     15 of 60
two shapes and a relation    one of the four arrangements of each pair of shapes         45 of 180
word or number               a quarter, by a hash of its letters                         1 in 4
===========================  ==========================================================  =========

A count is the number of items of that shape in the whole scene.  Relations are between different shapes and written
with "left of" and "above"; "a right of b" is "b left of a".
"""

import dataclasses
import hashlib
import itertools
from typing import Literal

from mammoth_jax.data.synthetic.relations import Relation, relations
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.vocabulary import COLOURS, SHAPES, Colour, Shape

Split = Literal["train", "heldout"]

MOST_ITEMS = 6
_WORDS_IN = 4  # one word in so many is held out


@dataclasses.dataclass(frozen=True)
class ShapeColour:
    """An item of that shape and colour."""

    shape: Shape
    colour: Colour


@dataclasses.dataclass(frozen=True)
class ShapeCount:
    """Exactly so many items of that shape."""

    shape: Shape
    count: int


@dataclasses.dataclass(frozen=True)
class ShapeRelation:
    """An item of one shape left of, or above, one of another shape."""

    first: Shape
    relation: Relation
    second: Shape


@dataclasses.dataclass(frozen=True)
class Word:
    """A text with that content."""

    content: str


Combination = ShapeColour | ShapeCount | ShapeRelation | Word

_COLOURS_HELD_OUT: dict[Shape, tuple[Colour, Colour]] = {
    "circle": ("yellow", "pink"),
    "square": ("purple", "white"),
    "triangle": ("black", "yellow"),
    "diamond": ("orange", "purple"),
    "cross": ("blue", "black"),
    "star": ("brown", "orange"),
    "heart": ("red", "blue"),
    "ring": ("green", "brown"),
    "crescent": ("pink", "red"),
    "arrow": ("white", "green"),
}

_COUNTS_HELD_OUT: dict[Shape, tuple[int, ...]] = {
    "circle": (2, 4),
    "square": (3, 5),
    "triangle": (4, 6),
    "diamond": (2, 5),
    "cross": (3, 6),
    "star": (2,),
    "heart": (3,),
    "ring": (4,),
    "crescent": (5,),
    "arrow": (6,),
}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _arrangements(a: Shape, b: Shape) -> tuple[ShapeRelation, ...]:
    return (
        ShapeRelation(a, "left of", b),
        ShapeRelation(b, "left of", a),
        ShapeRelation(a, "above", b),
        ShapeRelation(b, "above", a),
    )


SHAPE_COLOURS = tuple(ShapeColour(s, c) for s in SHAPES for c in COLOURS)
SHAPE_COUNTS = tuple(ShapeCount(s, n) for s in SHAPES for n in range(1, MOST_ITEMS + 1))
SHAPE_RELATIONS = tuple(r for a, b in itertools.combinations(SHAPES, 2) for r in _arrangements(a, b))

HELD_OUT: frozenset[Combination] = frozenset(
    [ShapeColour(s, c) for s, colours in _COLOURS_HELD_OUT.items() for c in colours]
    + [ShapeCount(s, n) for s, counts in _COUNTS_HELD_OUT.items() for n in counts]
    + [_arrangements(a, b)[_hash(f"{a} and {b}") % 4] for a, b in itertools.combinations(SHAPES, 2)]
)
"""Every held-out combination but the words, which have no end."""


def is_held_out(combination: Combination) -> bool:
    """Whether no scene of the train split shows this combination."""
    if isinstance(combination, Word):
        return _hash(combination.content) % _WORDS_IN == 0
    return combination in HELD_OUT


def combinations(scene: Scene) -> frozenset[Combination]:
    """All combinations that a scene shows."""
    found: set[Combination] = {ShapeColour(item.shape, item.colour) for item in scene.items}
    shapes: list[Shape] = [item.shape for item in scene.items]
    found.update(ShapeCount(shape, shapes.count(shape)) for shape in shapes)
    found.update(Word(text.content) for text in scene.texts)
    for a, b in itertools.permutations(scene.items, 2):
        if a.shape != b.shape:
            for relation in relations(a, b, scene.height, scene.width):
                if relation in ("left of", "above"):
                    found.add(ShapeRelation(a.shape, relation, b.shape))
    return frozenset(found)


def held_out_in(scene: Scene) -> frozenset[Combination]:
    """The held-out combinations that a scene shows: none in train, at least one in heldout."""
    return frozenset(c for c in combinations(scene) if is_held_out(c))
