"""Scenes on request: so many of a shape, two things in a relation, a word, and others beside them.

What is asked for (the *core*) is always there; others are left out where there is no room for them.  Everything else is
as in the world: sizes, places, backgrounds, overlaps, and no held-out combination that is not allowed.
"""

import dataclasses
import math

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic import font
from mammoth_jax.data.synthetic.background import legible_colours
from mammoth_jax.data.synthetic.composition import (
    LEAST_LETTER,
    LEAST_SIZE,
    MOST_SIZE,
    Composition,
    Wish,
    longest_text,
    scale_of,
)
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.relations import RELATIONS, Relation, relations_between
from mammoth_jax.data.synthetic.scene import Background, Scene
from mammoth_jax.data.synthetic.split import MOST_ITEMS, Combination
from mammoth_jax.data.synthetic.vocabulary import SHAPES, Colour, Shape

SMALLEST_SIDE = 64
"""Shortest side, in pixels, that has room for six items and a text."""

Core = tuple[Shape, Colour]
"""Shape and colour of one item."""

_TRIES = 40
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Look:
    """What captions never say and a model may choose.

    Attributes:
        least_size: of an item, in a picture of 64 pixels, as far as there is room for it.
        overlaps: how often two of several items may overlap.

    Raises:
      InputError: a size below the world's least, or a share outside 0 to 1.
    """

    least_size: float = LEAST_SIZE
    overlaps: float = 0.35

    def __post_init__(self) -> None:
        if self.least_size < LEAST_SIZE or not 0 <= self.overlaps <= 1:
            raise InputError(
                f"look: least_size {self.least_size:g}, overlaps {self.overlaps:g}: expected a least_size of at least "
                f"{LEAST_SIZE} pixels and overlaps from 0 to 1"
            )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a scene is to show.

    Attributes:
        core: shape and colour of what must be there; one shape any number of times, or two shapes.
        relation: of the first item of the core to the second; no other holds between them.
        text: what is written, if anything.
        text_colour: None: any that is legible.  A colour that is not takes another's place.
        others: how many more items of shapes that the core has not, where there is room; six in all.
        absent: shapes that are not to be there.
        background: None: any.
        allowed: held-out combinations that may arise.
        look: of what is there.
    """

    core: tuple[Core, ...] = ()
    relation: Relation | None = None
    text: str | None = None
    text_colour: Colour | None = None
    others: int = 0
    absent: tuple[Shape, ...] = ()
    background: Background | None = None
    allowed: frozenset[Combination] = frozenset()
    look: Look = Look()


def compose(plan: Plan, height: int, width: int, draws: Draws) -> Scene:
    """A scene of the plan, in a picture of at least 64 pixels a side.

    Raises:
      InputError: a side below 64 pixels, or a text that is too long for the picture.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"a picture of {height}x{width}: tasks need sides of at least {SMALLEST_SIDE} pixels"
        )
    if plan.text and len(plan.text) > longest_text(width, scale_of(height, width)):
        raise InputError(f"text {plan.text!r} is too long for a picture {width} pixels wide")
    return _PlannedScene(plan, height, width, draws).compose()


class _PlannedScene(Composition):
    """A scene in the making, of a plan."""

    def __init__(self, plan: Plan, height: int, width: int, draws: Draws) -> None:
        reserved: list[Shape] = [*plan.absent, *(shape for shape, _ in plan.core)]
        super().__init__(draws, height, width, plan.allowed, frozenset(reserved))
        if plan.background is not None:
            self.background = plan.background
        self.plan, self.least_size = plan, plan.look.least_size
        self.wishes = [Wish(shape, colour, True) for shape, colour in plan.core]

    def compose(self) -> Scene:
        plan, draws = self.plan, self.draws
        count = min(len(plan.core) + plan.others, MOST_ITEMS)
        self.may_overlap = count > 1 and draws.chance(plan.look.overlaps)
        most = min(MOST_SIZE[max(count, 1) - 1] * self.scale, min(self.height, self.width) - 4.0)
        if plan.text:
            self._write_planned(plan.text)
        if plan.core:
            self._place_core(most)
        for wish in self._others():
            self.place(wish, most)
        self.leave_out_counts()
        return self.scene()

    def _write_planned(self, content: str) -> None:
        self.write(content)
        colour = self.plan.text_colour
        if colour is not None and colour in legible_colours(self.background):
            self.texts[0] = dataclasses.replace(self.texts[0], colour=colour)

    def _others(self) -> list[Wish]:
        """Items of any shapes that the core has not, some like the one before."""
        free: list[Shape] = [shape for shape in SHAPES if shape not in self.reserved]
        shapes: list[Shape] = self.draws.shuffled(free)
        count = min(self.plan.others, MOST_ITEMS - len(self.items))
        wishes = [Wish(shape, None, False) for shape in shapes[:count]]
        return [wishes[n - 1] if n and self.draws.chance(0.25) else wish for n, wish in enumerate(wishes)]

    def _place_core(self, most: float) -> None:
        """What was asked for: anywhere; if that fails, a text moves to the edge and the rest has cells or halves."""
        relation = self.plan.relation
        for _ in range(_ATTEMPTS):
            if relation is not None:
                self._place_related(relation, most)
            else:
                all(self.place(wish, most) for wish in self.wishes)
            if len(self.items) == len(self.wishes):
                return
            self._clear()
        self._text_to_the_edge()
        if len({wish.shape for wish in self.wishes}) == 1:
            self.place_on_grid(self.wishes)
            return
        tried: list[Relation] = self.draws.shuffled(RELATIONS) if relation is None else [relation]
        for arrangement in tried:
            self._place_in_halves(arrangement)
            if len(self.items) == len(self.wishes):
                return
            self._clear()

    def _clear(self) -> None:
        self.items.clear()
        self.overlapped.clear()

    def _text_to_the_edge(self) -> None:
        for text in self.texts[:1]:
            height = math.ceil(LEAST_LETTER * self.scale)
            top = 1 if self.draws.chance(0.5) else self.height - 1 - height
            left = min(text.corner[0], self.width - 1 - font.text_width(len(text.content), height))
            self.texts[0] = dataclasses.replace(text, corner=(left, top), height=height)

    def _place_related(self, relation: Relation, most: float) -> None:
        """The core's two items so that this relation holds and no other."""
        for _ in range(_TRIES):
            sizes = self.any_size(most), self.any_size(most)
            first, second = self.anywhere(sizes[0]), self.anywhere(sizes[1])
            if relations_between(first, second, self.height, self.width) == (relation,):
                if self.put(self.wishes[0], first, sizes[0]) and self.put(self.wishes[1], second, sizes[1]):
                    return
                self._clear()

    def _place_in_halves(self, relation: Relation) -> None:
        """Two items of the least size in the middles of two halves of the rows that the text leaves."""
        first, last = self.free_rows()
        x, y = self.width / 2, (first + last) / 2
        beside = relation in ("left of", "right of")
        room = min(self.width / 2, last - first) if beside else (last - first) / 2
        least = max(LEAST_SIZE * self.scale, min(self.least_size * self.scale, room - 3))
        size = math.ceil(2 * least) / 2
        if beside:
            places = (self.width / 4, y), (self.width * 3 / 4, y)
        else:
            places = (x, (first + y) / 2), (x, (y + last) / 2)
        for wish, place in zip(
            self.wishes, places if relation in ("left of", "above") else places[::-1], strict=True
        ):
            self.put(wish, place, size)
