"""Puts items and texts into a picture, by the rules of the world.

Nothing is placed where it would make a held-out combination that is not expressly allowed.  Every search has a bound.
"""

import dataclasses
import math

from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import SOFT_PARTNERS, TEXTURE_PARTNERS, legible_colours
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.relations import OPPOSITE, Relation, relations_between
from mammoth_jax.data.synthetic.render import boxes_meet, in_one_piece, visible_share
from mammoth_jax.data.synthetic.scene import (
    Background,
    Box,
    Checks,
    Gradient,
    Item,
    Noise,
    Plain,
    Scene,
    Stripes,
    Text,
)
from mammoth_jax.data.synthetic.split import (
    HELD_OUT,
    MOST_ITEMS,
    Combination,
    ShapeColour,
    ShapeCount,
    ShapeRelation,
)
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, SHAPES, Colour, Shape

LEAST_SIZE = 12
LEAST_LETTER = 9
LEAST_VISIBLE = 0.75
_MOST_LETTER = 14
MOST_SIZE = (36, 30, 26, 22, 20, 18)  # of one item, of each of two, ... in a picture of 64 pixels
_GAP = 2.0  # empty pixels between things that do not overlap
_TRIES = 20

_PAIRS_HELD_OUT = frozenset((c.first, c.relation, c.second) for c in HELD_OUT if isinstance(c, ShapeRelation))
TRAIN_COLOURS: dict[Shape, tuple[Colour, ...]] = {
    shape: tuple(colour for colour in COLOURS if ShapeColour(shape, colour) not in HELD_OUT)
    for shape in SHAPES
}


def scale_of(height: int, width: int) -> float:
    """Pictures larger than 64 pixels show larger things; smaller ones show fewer, of the same least size."""
    return max(1.0, min(height, width) / 64)


def _grid(count: int, height: float, width: float) -> tuple[int, int]:
    """Rows and columns of cells, nearly square, for so many items."""
    columns = math.ceil(math.sqrt(count * width / height))
    return math.ceil(count / columns), columns


def most_items(height: int, width: int) -> int:
    """The largest count whose cells hold an item of the least size each."""
    scale = scale_of(height, width)
    counts = range(MOST_ITEMS, 1, -1)
    return next((count for count in counts if _cells_fit(count, float(height), float(width), scale)), 1)


def _cells_fit(count: int, height: float, width: float, scale: float) -> bool:
    """Whether each of so many cells holds an item of the least size."""
    rows, columns = _grid(count, height, width)
    return min((height - 2) / rows, (width - 2) / columns) >= (LEAST_SIZE + _GAP) * scale + 1


def longest_text(width: int, scale: float) -> int:
    """Letters of the least height that fit side by side."""
    height = math.ceil(LEAST_LETTER * scale)
    return (width - 2 + font.glyph_gap(height)) // (font.glyph_width(height) + font.glyph_gap(height))


def any_background(draws: Draws, least: int) -> Background:
    """A background whose textures are at least ``least`` pixels wide."""
    pattern = draws.weighted((0.25, 0.25, 0.17, 0.15, 0.18))
    colour = draws.choice(BACKGROUND_COLOURS)
    partners = TEXTURE_PARTNERS[colour] if pattern in (2, 3) else SOFT_PARTNERS[colour]
    if pattern == 0 or not partners:
        return Plain(colour)
    second = draws.choice(partners)
    direction = draws.choice(("right", "down", "diagonal"))
    wide = draws.between(least, 2 * least)
    match pattern:
        case 1:
            return Gradient(colour, second, direction)
        case 2:
            return Stripes(colour, second, direction, wide)
        case 3:
            return Checks(colour, second, wide)
        case _:
            return Noise(colour, second, 2 * wide, draws.below(1 << 31))


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the next item should be; ``firm`` where nothing else will do."""

    shape: Shape
    colour: Colour | None
    firm: bool


class Composition:
    """A scene in the making.

    ``allowed`` are held-out combinations that may arise all the same; the shapes in ``reserved`` are for firm wishes.
    """

    def __init__(
        self,
        draws: Draws,
        height: int,
        width: int,
        allowed: frozenset[Combination] = frozenset(),
        reserved: frozenset[Shape] = frozenset(),
    ) -> None:
        self.draws, self.height, self.width = draws, height, width
        self.allowed, self.reserved = allowed, reserved
        self.scale = scale_of(height, width)
        self.background = any_background(draws, math.ceil(6 * self.scale))
        self.items: list[Item] = []
        self.texts: list[Text] = []
        self.overlapped: set[int] = set()
        self.may_overlap = False
        self.least_size: float = LEAST_SIZE

    def scene(self) -> Scene:
        """What was put together."""
        items = tuple(
            dataclasses.replace(
                item, visible=visible_share(item, tuple(self.items[n + 1 :]), self.height, self.width)
            )
            for n, item in enumerate(self.items)
        )
        return Scene(self.height, self.width, self.background, items, tuple(self.texts))

    # What to show.

    def _shapes_for(self, wish: Wish, centre: tuple[float, float]) -> list[Shape]:
        """Shapes that an item there may have, the wished one first."""
        facts: list[tuple[Relation, Shape]] = [
            (relation, other.shape)
            for other in self.items
            for relation in relations_between(centre, other.centre, self.height, self.width)
        ]
        if wish.firm:
            wanted: list[Shape] = [wish.shape]
        else:
            start = self.draws.below(len(SHAPES))
            wanted = [wish.shape, *SHAPES[start:], *SHAPES[:start]]
            wanted = [shape for shape in wanted if shape not in self.reserved]
        return [shape for shape in wanted if all(self._may_stand(shape, *fact) for fact in facts)]

    def _may_stand(self, shape: Shape, relation: Relation, other: Shape) -> bool:
        if shape == other:
            return True
        if relation in ("right of", "below"):
            shape, relation, other = other, OPPOSITE[relation], shape
        fact = (shape, relation, other)
        if fact not in _PAIRS_HELD_OUT:
            return True
        return ShapeRelation(*fact) in self.allowed

    def _colour_for(self, wish: Wish, shape: Shape, touched: set[Colour]) -> Colour | None:
        """A colour for a shape that none of the items it touches has."""
        if wish.colour is not None and shape == wish.shape:
            return None if wish.colour in touched else wish.colour
        choices: list[Colour] = [colour for colour in TRAIN_COLOURS[shape] if colour not in touched]
        if self.items and self.draws.chance(0.15) and self.items[-1].colour in choices:
            return self.items[-1].colour
        return self.draws.choice(choices)

    def leave_out_counts(self) -> None:
        """Leaves out items until no shape's count is held out; one of a kind never is."""
        present: dict[Shape, None] = {item.shape: None for item in self.items}  # a set in order
        for shape in present:
            while True:
                mine = [n for n, item in enumerate(self.items) if item.shape == shape]
                count = ShapeCount(shape, len(mine))
                if count not in HELD_OUT or count in self.allowed:
                    break
                del self.items[mine[-1]]

    # Where to show it.

    def any_size(self, most: float) -> float:
        """A size in half pixels; ``most`` where the least is above that."""
        least = min(math.ceil(2 * self.least_size * self.scale), int(2 * most))
        return self.draws.between(least, int(2 * most)) / 2

    def anywhere(self, size: float) -> tuple[float, float]:
        """A centre, in quarter pixels, that keeps a square of ``size`` one pixel inside the picture."""
        low = math.ceil(4 * (size / 2 + 1))
        x = self.draws.between(low, math.floor(4 * (self.width - size / 2 - 1)))
        y = self.draws.between(low, math.floor(4 * (self.height - size / 2 - 1)))
        return x / 4, y / 4

    def _near(self, other: Item, size: float) -> tuple[float, float]:
        """A centre about where a square of ``size`` touches another item."""
        reach = (other.size + size) / 2
        along = self.draws.between(int(2.4 * reach), int(4 * reach)) / 4 * self.draws.choice((-1, 1))
        across = self.draws.between(-int(3 * reach), int(3 * reach)) / 4
        right, down = (along, across) if self.draws.chance(0.5) else (across, along)
        x, y = other.centre[0] + right, other.centre[1] + down
        edge = math.ceil(4 * (size / 2 + 1)) / 4
        return min(max(x, edge), self.width - edge), min(max(y, edge), self.height - edge)

    def place(self, wish: Wish, most: float) -> bool:
        """Adds an item like the wish where there is room; smaller ones are tried later."""
        draws = self.draws
        for attempt in range(_TRIES):
            size = self.any_size(most if attempt < _TRIES // 2 else (most + LEAST_SIZE * self.scale) / 2)
            if self.may_overlap and self.items and draws.chance(0.6):
                centre = self._near(draws.choice(self.items), size)
            else:
                centre = self.anywhere(size)
            if self.put(wish, centre, size):
                return True
        return False

    def put(self, wish: Wish, centre: tuple[float, float], size: float) -> bool:
        square = shapes.box_of("square", centre, size)
        if any(boxes_meet(square, text.box, _GAP) for text in self.texts):
            return False
        near = [n for n, item in enumerate(self.items) if boxes_meet(square, item.box, _GAP)]
        if near and (not self.may_overlap or len(near) > 1 or self.overlapped.intersection(near)):
            return False
        fitting = self._shapes_for(wish, centre)
        if not fitting:
            return False
        touched: set[Colour] = {self.items[n].colour for n in near}
        colour = self._colour_for(wish, fitting[0], touched)
        if colour is None:
            return False
        item = Item(fitting[0], colour, centre, size)
        for n in near:
            below = self.items[n]
            if visible_share(below, (item,), self.height, self.width) < LEAST_VISIBLE:
                return False
            if not in_one_piece(below, (item,), self.height, self.width):
                return False
        if near:
            self.overlapped.update((near[0], len(self.items)))
        self.items.append(item)
        return True

    def place_pair(self, goal: ShapeRelation, wishes: list[Wish], most: float) -> None:
        """The two items of a held-out relation, anywhere; if that fails, in the middles of two halves."""
        for _ in range(_TRIES):
            sizes = self.any_size(most), self.any_size(most)
            first, second = self.anywhere(sizes[0]), self.anywhere(sizes[1])
            if goal.relation in relations_between(first, second, self.height, self.width):
                if self.put(wishes[0], first, sizes[0]) and self.put(wishes[1], second, sizes[1]):
                    return
                self.items.clear()
                self.overlapped.clear()
        least = math.ceil(2 * LEAST_SIZE * self.scale) / 2
        x, y = self.width // 2, self.height // 2
        if goal.relation == "left of":
            places = (self.width // 4, y), (self.width * 3 // 4, y)
        else:
            places = (x, self.height // 4), (x, self.height * 3 // 4)
        for wish, (x, y) in zip(wishes, places, strict=False):
            self.put(wish, (float(x), float(y)), least)

    def place_on_grid(self, wishes: list[Wish]) -> None:
        """All items anew, one in each of some cells, beside the text if there is room, else instead of it."""
        self.items.clear()
        self.overlapped.clear()
        first, last = self.free_rows()
        if not _cells_fit(len(wishes), last - first, float(self.width), self.scale):
            self.texts.clear()
            first, last = 0.0, float(self.height)
        rows, columns = _grid(len(wishes), last - first, float(self.width))
        tall, wide = (last - first - 2) / rows, (self.width - 2) / columns
        most = min(min(tall, wide) - _GAP, MOST_SIZE[-1] * self.scale)
        cells = self.draws.shuffled(range(rows * columns))
        for wish, cell in zip(wishes, cells, strict=False):
            size = self.any_size(most)
            slack_x, slack_y = int(4 * (wide - size - _GAP)), int(4 * (tall - size - _GAP))
            left, top = 1 + cell % columns * wide, first + 1 + cell // columns * tall
            x = math.ceil(4 * (left + size / 2 + 1)) + self.draws.between(0, max(slack_x - 1, 0))
            y = math.ceil(4 * (top + size / 2 + 1)) + self.draws.between(0, max(slack_y - 1, 0))
            self.put(wish, (x / 4, y / 4), size)

    def place_beside_text(self, wish: Wish) -> None:
        """One item of the least size in the larger band above or below the first text."""
        first, last = self.free_rows()
        size = math.ceil(2 * LEAST_SIZE * self.scale) / 2
        self.put(wish, (self.width / 2, (first + last) / 2), size)

    def free_rows(self) -> tuple[float, float]:
        """The larger band above or below the text."""
        if not self.texts:
            return 0.0, float(self.height)
        _, top, _, bottom = self.texts[0].box
        return (0.0, top) if top > self.height - bottom else (bottom, float(self.height))

    def write(self, content: str) -> None:
        """Adds a text where nothing is in its way, or none; the first text always finds a place."""
        draws = self.draws
        lowest = math.ceil(LEAST_LETTER * self.scale)
        height = draws.between(lowest, int(_MOST_LETTER * self.scale))
        while height > lowest and font.text_width(len(content), height) > self.width - 2:
            height -= 1
        wide = font.text_width(len(content), height)
        if wide > self.width - 2:
            return
        band = (LEAST_SIZE + 2 * _GAP) * self.scale  # what a text in an empty picture leaves for an item
        for _ in range(_TRIES):
            left = draws.between(1, self.width - 1 - wide)
            top = draws.between(1, self.height - 1 - height)
            if not self.items and max(top, self.height - top - height) < band:
                top = 1
            box: Box = (float(left), float(top), float(left + wide), float(top + height))
            taken = [*(item.box for item in self.items), *(text.box for text in self.texts)]
            if not any(boxes_meet(box, other, _GAP) for other in taken):
                colour = draws.choice(legible_colours(self.background))
                self.texts.append(Text(content, colour, (left, top), height))
                return
