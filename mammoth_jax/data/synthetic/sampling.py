"""Draws scenes.

A train scene is put together so that no held-out combination can arise: a shape or colour that would make one is not
taken, and where a count would be one, items are left out (which makes nothing else appear).  A heldout scene starts
from one held-out combination, each kind as likely and each of its kind as likely, and is filled up by the rules of
train.  Every search has a bound and a way out, so a scene costs at most a few milliseconds.
"""

from mammoth_jax.data.synthetic.composition import (
    MOST_SIZE,
    TRAIN_COLOURS,
    Composition,
    Wish,
    longest_text,
    most_items,
    scale_of,
)
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import (
    HELD_OUT,
    Combination,
    ShapeColour,
    ShapeCount,
    ShapeRelation,
    Split,
    Word,
)
from mammoth_jax.data.synthetic.vocabulary import SHAPES, Shape
from mammoth_jax.data.synthetic.words import draw_word

SMALLEST_SIDE = 32
"""Shortest side of a picture, in pixels."""

_COUNT_WEIGHTS = (0.2, 0.25, 0.2, 0.14, 0.11, 0.1)
_GOALS: dict[type, tuple[Combination, ...]] = {
    kind: tuple(sorted((c for c in HELD_OUT if isinstance(c, kind)), key=repr))
    for kind in (ShapeColour, ShapeCount, ShapeRelation)
}


def sample_scene(split: Split, height: int, width: int, draws: Draws) -> Scene:
    """One scene of a split in a picture of the given size (at least 32 pixels a side)."""
    goal = _draw_goal(draws, height, width) if split == "heldout" else None
    return _SampledScene(draws, height, width, goal).compose()


def _draw_goal(draws: Draws, height: int, width: int) -> Combination:
    """The held-out combination that a scene is built around."""
    kind = draws.below(4)
    if kind == 3:
        return Word(draw_word(draws, "heldout", longest_text(width, scale_of(height, width))))
    room = most_items(height, width)
    goals = _GOALS[(ShapeColour, ShapeCount, ShapeRelation)[kind]]
    return draws.choice([goal for goal in goals if not isinstance(goal, ShapeCount) or goal.count <= room])


class _SampledScene(Composition):
    """A scene of the whole world, around a goal or none."""

    def __init__(self, draws: Draws, height: int, width: int, goal: Combination | None) -> None:
        counted = frozenset((goal.shape,)) if isinstance(goal, ShapeCount) else frozenset()
        super().__init__(draws, height, width, frozenset() if goal is None else frozenset((goal,)), counted)
        self.goal = goal

    def compose(self) -> Scene:
        draws, goal = self.draws, self.goal
        wishes = self._wishes()
        self.may_overlap = len(wishes) > 1 and draws.chance(0.35)
        most = MOST_SIZE[len(wishes) - 1] * self.scale
        most = min(most, min(self.height, self.width) - 4.0)
        if isinstance(goal, Word):
            self.write(goal.content)
        elif goal is None and draws.chance(0.5):
            self.write(self._train_word())
        if isinstance(goal, ShapeRelation):
            self.place_pair(goal, wishes, most)
        for wish in wishes[len(self.items) :]:
            self.place(wish, most)
        if self._crowded(wishes):
            self.place_on_grid(wishes)
        if not self.items:
            self.place_beside_text(wishes[0])
        self.leave_out_counts()
        if draws.chance(0.08 if self.texts or goal is None else 0.4):
            self.write(self._train_word())
        return self.scene()

    # What to show.

    def _wishes(self) -> list[Wish]:
        draws, goal = self.draws, self.goal
        room = most_items(self.height, self.width)
        count = min(draws.weighted(_COUNT_WEIGHTS) + 1, room)
        if isinstance(goal, ShapeCount):
            colour = draws.choice(TRAIN_COLOURS[goal.shape]) if draws.chance(0.6) else None
            return [Wish(goal.shape, colour, True)] * goal.count + self._mixed(min(1, room - goal.count))
        if isinstance(goal, ShapeColour):
            return [Wish(goal.shape, goal.colour, True), *self._mixed(count - 1)]
        if isinstance(goal, ShapeRelation):
            pair = [Wish(goal.first, None, True), Wish(goal.second, None, True)]
            return pair + self._mixed(count - 2)
        if count > 1 and draws.chance(0.3):
            fitting: list[Shape] = [shape for shape in SHAPES if ShapeCount(shape, count) not in HELD_OUT]
            shape = draws.choice(fitting)
            colour = draws.choice(TRAIN_COLOURS[shape]) if draws.chance(0.6) else None
            return [Wish(shape, colour, True)] * count
        return self._mixed(count)

    def _mixed(self, count: int) -> list[Wish]:
        """Items of any shape, some like the one before."""
        wishes: list[Wish] = []
        for _ in range(count):
            again = wishes and self.draws.chance(0.25)
            wishes.append(wishes[-1] if again else Wish(self.draws.choice(SHAPES), None, False))
        return wishes

    def _train_word(self) -> str:
        return draw_word(self.draws, "train", longest_text(self.width, self.scale))

    def _crowded(self, wishes: list[Wish]) -> bool:
        """Whether items drawn one by one anywhere left too little room for the rest."""
        if isinstance(self.goal, ShapeCount):
            return sum(item.shape == self.goal.shape for item in self.items) < self.goal.count
        return self.goal is None and len(wishes) > 3 and len(self.items) < len(wishes)
