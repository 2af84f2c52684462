"""Edits: a scene before and after, of which one thing changed.

Both scenes obey the rules of the world.  What is said of an edit is derived from the two scenes, so that the way back
is an edit like any other.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from mammoth_jax.data.synthetic import font, shapes
from mammoth_jax.data.synthetic.background import colours_of, legible_colours
from mammoth_jax.data.synthetic.composition import LEAST_SIZE, MOST_SIZE, any_background, scale_of
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.relations import Place, Relation, place_of, relations
from mammoth_jax.data.synthetic.render import boxes_meet, with_visible_shares
from mammoth_jax.data.synthetic.sampling import sample_scene
from mammoth_jax.data.synthetic.scene import Background, Box, Item, Scene, Text
from mammoth_jax.data.synthetic.split import MOST_ITEMS, Split, held_out_in
from mammoth_jax.data.synthetic.vocabulary import COLOURS, SHAPES, Colour, Shape
from mammoth_jax.data.synthetic.words import draw_word

Operation = Literal["recolour", "remove", "add", "replace", "move", "background", "text"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_GAP = 2.0
_TRIES = 12
_SCENES = 40


@dataclasses.dataclass(frozen=True)
class Beside:
    """In a relation, and no other, to an item of the scene after the edit."""

    relation: Relation
    other: int


@dataclasses.dataclass(frozen=True)
class Corner:
    """Nearest to a corner of the picture."""

    place: Place


@dataclasses.dataclass(frozen=True)
class Toward:
    """Moved straight in a direction (``left of`` is to the left), by an eighth of the shorter side at least."""

    direction: Relation


Where = Beside | Corner | Toward


@dataclasses.dataclass(frozen=True)
class Edit:
    """One change of a scene.

    Attributes:
        operation: what kind of change it is.
        before: the scene that is edited.
        after: the result; what did not change is the same object in the same order.
        item: number of the item that changes, in ``before``; None for what is added and for backgrounds and texts.
        result: number of the changed item in ``after``; None for what is removed, backgrounds and texts.
        text: number of the text that changes, in both.
        where: where an item that is added or moved goes; None for anywhere.
    """

    operation: Operation
    before: Scene
    after: Scene
    item: int | None = None
    result: int | None = None
    text: int | None = None
    where: Where | None = None

    @property
    def old(self) -> Item | Text | Background | None:
        """What was there before."""
        return _part(self.before, self.operation, self.item, self.text)

    @property
    def new(self) -> Item | Text | Background | None:
        """What is there instead."""
        return _part(self.after, self.operation, self.result, self.text)

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """Numbers before and after of the items that do not change."""
        old = [n for n in range(len(self.before.items)) if n != self.item]
        new = [n for n in range(len(self.after.items)) if n != self.result]
        return tuple(zip(old, new, strict=True))

    @property
    def changed_boxes(self) -> tuple[Box, ...]:
        """Boxes, rounded outwards to pixels, outside of which both pictures are equal."""
        if self.operation == "background":
            return ((0.0, 0.0, float(self.before.width), float(self.before.height)),)
        parts = (part for part in (self.old, self.new) if isinstance(part, Item | Text))
        return tuple(
            (math.floor(a) + 0.0, math.floor(b) + 0.0, math.ceil(c) + 0.0, math.ceil(d) + 0.0)
            for a, b, c, d in (part.box for part in parts)
        )

    def to_dict(self) -> dict[str, Any]:
        """What a scorer reads: the operation, what changes from what to what, where, and what stays."""
        out: dict[str, Any] = {
            "operation": self.operation,
            "old": _described(self.old),
            "new": _described(self.new),
            "kept": [_described(self.after.items[n]) for _, n in self.kept],
            "kept_text": [_described(t) for n, t in enumerate(self.after.texts) if n != self.text],
            "changed_boxes": [list(box) for box in self.changed_boxes],
        }
        match self.where:
            case Beside(relation, other):
                out["where"] = {"relation": relation, "other": _described(self.after.items[other])}
            case Corner(place):
                out["where"] = {"corner": place}
            case Toward(direction):
                out["where"] = {"toward": direction}
        return out


def _part(
    scene: Scene, operation: Operation, item: int | None, text: int | None
) -> Item | Text | Background | None:
    if operation == "background":
        return scene.background
    if text is not None:
        return scene.texts[text]
    return None if item is None else scene.items[item]


def _described(part: Item | Text | Background | None) -> dict[str, Any] | None:
    match part:
        case None:
            return None
        case Item():
            return {
                "class": part.shape,
                "color": part.colour,
                "center": list(part.centre),
                "size": part.size,
                "box": list(part.box),
            }
        case Text():
            return {"content": part.content, "color": part.colour, "box": list(part.box)}
        case background:
            return {"type": type(background).__name__.lower(), "colors": list(colours_of(background))}


def unique_by(scene: Scene, number: int) -> Literal["shape", "colour", None]:
    """What tells an item from all others: its shape, only shape and colour together, or nothing."""
    item = scene.items[number]
    same = [other for n, other in enumerate(scene.items) if n != number and other.shape == item.shape]
    if not same:
        return "shape"
    return None if any(other.colour == item.colour for other in same) else "colour"


def reverse(edit: Edit, draws: Draws) -> Edit | None:
    """The way back; None if it could not be told in words."""
    opposite: dict[Operation, Operation] = {"remove": "add", "add": "remove"}
    operation = opposite.get(edit.operation, edit.operation)
    back = dataclasses.replace(
        edit,
        operation=operation,
        before=edit.after,
        after=edit.before,
        item=edit.result,
        result=edit.item,
        where=None,
    )
    return _told(back, draws)


def sample_edit(split: Split, operation: Operation, height: int, width: int, draws: Draws) -> Edit:
    """An edit of a split: in train neither scene shows anything held out; in heldout the result does.

    Half of the scenes of heldout are of train before the edit, so that it is the edit that makes the combination.
    """
    for _ in range(_SCENES):
        base = "train" if split == "train" or draws.chance(0.5) else "heldout"
        scene = sample_scene(base, height, width, draws)
        for edit in _changes(scene, split, operation, draws):
            if draws.chance(0.5):
                back = reverse(edit, draws)
                if back is not None and _of_split(back.after, split) and back.operation == operation:
                    return back
            return edit
    return sample_edit(split, "background", height, width, draws)


def _of_split(scene: Scene, split: Split) -> bool:
    return bool(held_out_in(scene)) == (split == "heldout")


def _changes(scene: Scene, split: Split, operation: Operation, draws: Draws) -> Iterator[Edit]:
    """Edits of a scene that are possible, of the split and can be told."""
    change = _CHANGES[operation]
    for _ in range(_TRIES):
        found = change(scene, split, draws)
        if found is None or not _of_split(found.after, split):
            continue
        told = _told(dataclasses.replace(found, after=with_visible_shares(found.after)), draws)
        if told is not None:
            yield told


def _told(edit: Edit, draws: Draws) -> Edit | None:
    """The edit with a place for what is added or moved; None if the words would leave open what is meant."""
    if edit.item is not None and unique_by(edit.before, edit.item) is None:
        return None
    if edit.operation not in ("add", "move"):
        return edit
    places = list(_places(edit))
    if edit.operation == "add" and (not places or draws.chance(0.25)):
        return edit
    return dataclasses.replace(edit, where=draws.choice(places)) if places else None


def _places(edit: Edit) -> Iterator[Where]:
    """Where the changed item is after the edit and was not before."""
    after, height, width = edit.after, edit.after.height, edit.after.width
    assert edit.result is not None
    new = after.items[edit.result]
    old = None if edit.item is None else edit.before.items[edit.item]
    for n_before, n_after in edit.kept:
        other = after.items[n_after]
        holding = relations(new, other, height, width)
        if len(holding) != 1 or unique_by(edit.before, n_before) is None:
            continue
        if old is None or holding[0] not in relations(old, other, height, width):
            yield Beside(holding[0], n_after)
    place = place_of(new.centre, height, width)
    if place is not None and (old is None or place != place_of(old.centre, height, width)):
        yield Corner(place)
    if old is not None and 0 in (new.centre[0] - old.centre[0], new.centre[1] - old.centre[1]):
        for direction in relations(new, old, height, width):
            yield Toward(direction)


# What changes.  Each gives an edit whose result may still be of the other split, or None where it found nothing.


def _any_item(scene: Scene, draws: Draws) -> int:
    return draws.below(len(scene.items))


def _with_item(scene: Scene, number: int, *items: Item) -> Scene:
    return dataclasses.replace(scene, items=(*scene.items[:number], *items, *scene.items[number + 1 :]))


def _free(scene: Scene, item: Item, but: int | None) -> bool:
    """Whether an item stands clear of everything else and of the edges."""
    left, top, right, bottom = square = shapes.box_of("square", item.centre, item.size)
    if left < 1 or top < 1 or right > scene.width - 1 or bottom > scene.height - 1:
        return False
    others = [other.box for n, other in enumerate(scene.items) if n != but]
    return not any(boxes_meet(square, box, _GAP) for box in (*others, *(t.box for t in scene.texts)))


def _recolour(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    number = _any_item(scene, draws)
    item = scene.items[number]
    touching = {other.colour for other in scene.items if boxes_meet(item.box, other.box, _GAP)}
    colours: list[Colour] = [colour for colour in COLOURS if colour not in touching]
    changed = dataclasses.replace(item, colour=draws.choice(colours))
    return Edit("recolour", scene, _with_item(scene, number, changed), number, number)


def _remove(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    if len(scene.items) < 2:
        return None
    number = _any_item(scene, draws)
    return Edit("remove", scene, _with_item(scene, number), number)


def _add(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    if len(scene.items) == MOST_ITEMS:
        return None
    scale = scale_of(scene.height, scene.width)
    most = MOST_SIZE[len(scene.items)] * scale
    size = draws.between(math.ceil(2 * LEAST_SIZE * scale), int(2 * most)) / 2
    item = Item(draws.choice(SHAPES), draws.choice(COLOURS), _anywhere(scene, size, draws), size)
    after = dataclasses.replace(scene, items=(*scene.items, item))
    return Edit("add", scene, after, None, len(scene.items)) if _free(scene, item, None) else None


def _anywhere(scene: Scene, size: float, draws: Draws) -> tuple[float, float]:
    low = math.ceil(4 * (size / 2 + 1))
    x = draws.between(low, math.floor(4 * (scene.width - size / 2 - 1)))
    y = draws.between(low, math.floor(4 * (scene.height - size / 2 - 1)))
    return x / 4, y / 4


def _replace(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    number = _any_item(scene, draws)
    item = scene.items[number]
    if not _free(scene, item, number):
        return None
    shapes_left: list[Shape] = [shape for shape in SHAPES if shape != item.shape]
    shape = draws.choice(shapes_left)
    colour = item.colour if draws.chance(0.5) else draws.choice(COLOURS)
    changed = dataclasses.replace(item, shape=shape, colour=colour)
    return Edit("replace", scene, _with_item(scene, number, changed), number, number)


def _move(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    number = _any_item(scene, draws)
    item = scene.items[number]
    x, y = _anywhere(scene, item.size, draws)
    straight = draws.weighted((0.2, 0.2, 0.6))
    centre = ((x, item.centre[1]), (item.centre[0], y), (x, y))[straight]
    moved = dataclasses.replace(item, centre=centre)
    if not relations(moved, item, scene.height, scene.width) or not _free(scene, moved, number):
        return None
    return Edit("move", scene, _with_item(scene, number, moved), number, number)


def _background(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    background = any_background(draws, math.ceil(6 * scale_of(scene.height, scene.width)))
    same = set(colours_of(background)) == set(colours_of(scene.background))
    legible = legible_colours(background)
    if same or any(text.colour not in legible for text in scene.texts):
        return None
    return Edit("background", scene, dataclasses.replace(scene, background=background))


def _text(scene: Scene, split: Split, draws: Draws) -> Edit | None:
    if not scene.texts:
        return None
    number = draws.below(len(scene.texts))
    text = scene.texts[number]
    if draws.chance(0.25):
        colours: list[Colour] = [c for c in legible_colours(scene.background) if c != text.colour]
        if not colours:
            return None
        changed = dataclasses.replace(text, colour=draws.choice(colours))
    else:
        gap = font.glyph_gap(text.height)
        room = (scene.width - 1 - text.corner[0] + gap) // (font.glyph_width(text.height) + gap)
        letters = max(3, len(text.content) if draws.chance(0.5) else room)
        changed = dataclasses.replace(text, content=draw_word(draws, split, letters))
    others = [t for n, t in enumerate(scene.texts) if n != number]
    right = changed.corner[0] + font.text_width(len(changed.content), changed.height)
    taken = (*(item.box for item in scene.items), *(t.box for t in others))
    if changed == text or any(t.content in (text.content, changed.content) for t in others):
        return None
    if right > scene.width - 1 or any(boxes_meet(changed.box, box, _GAP) for box in taken):
        return None
    texts = (*scene.texts[:number], changed, *scene.texts[number + 1 :])
    return Edit("text", scene, dataclasses.replace(scene, texts=texts), text=number)


_CHANGES: dict[Operation, Callable[[Scene, Split, Draws], Edit | None]] = {
    "recolour": _recolour,
    "remove": _remove,
    "add": _add,
    "replace": _replace,
    "move": _move,
    "background": _background,
    "text": _text,
}
