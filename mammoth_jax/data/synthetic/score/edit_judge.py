"""Whether an edited picture shows the change that was asked for, and the rest as it was."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic.edits import Beside, Corner, Edit, Toward, Where
from mammoth_jax.data.synthetic.relations import place_of, relations_between
from mammoth_jax.data.synthetic.scene import Box, Item, Text
from mammoth_jax.data.synthetic.score.find import find
from mammoth_jax.data.synthetic.score.findings import Finding, FoundItem, FoundText
from mammoth_jax.data.synthetic.score.judge import background_reasons
from mammoth_jax.data.synthetic.score.smoothing import covered

FARTHEST = 3.0
"""How far the centre of an item that stays may move, in pixels."""

MOST_DIFFERENCE = 1.5
"""How much more the rest may differ from the picture before than the VAE's reconstruction of that does."""

_AROUND = 2.0  # pixels around a changed box that a decoder blurs together with it


@dataclasses.dataclass(frozen=True)
class EditVerdict:
    """Whether the change is there, and whether everything else stayed; ``reasons`` says what is not so."""

    carried_out: bool
    preserved: bool
    reasons: tuple[str, ...] = ()

    @property
    def correct(self) -> bool:
        """Both."""
        return self.carried_out and self.preserved


def judge_edit(
    edit: Edit,
    before: UInt8[np.ndarray, "height width 3"],
    after: UInt8[np.ndarray, "height width 3"],
    reconstruction: UInt8[np.ndarray, "height width 3"],
) -> EditVerdict:
    """Holds an edited picture against what was asked for.

    Args:
      edit: the edit; its scene ``before`` is what the picture ``before`` shows.
      before: the picture that was given.
      after: the picture that came back, of the same size.
      reconstruction: what the VAE makes of ``before``; the rest may differ from ``before`` as much as it does, and half
        of that more.
    """
    found = find(after)
    kept = _kept(edit, found)
    missing = tuple(_missing(edit, found, kept))
    lost = tuple(_lost(edit, found, kept))
    if edit.operation != "background":
        boxes = _changed_boxes(edit, found, kept)
        difference, coded = (mean_difference(before, one, boxes) for one in (after, reconstruction))
        if difference > MOST_DIFFERENCE * coded:
            allowed = f"{MOST_DIFFERENCE} x {coded:.2f}"
            lost = (*lost, f"the rest differs by {difference:.2f} of 255, more than {allowed}")
    return EditVerdict(not missing, not lost, (*missing, *lost))


def mean_difference(
    one: UInt8[np.ndarray, "height width 3"],
    other: UInt8[np.ndarray, "height width 3"],
    changed: tuple[Box, ...] = (),
) -> float:
    """Mean absolute difference of two pictures outside boxes, of values 0 to 255; 0 where nothing is outside."""
    outside = ~covered(one.shape[0], one.shape[1], changed, _AROUND)
    if not outside.any():
        return 0.0
    return float(np.abs(one[outside].astype(np.int16) - other[outside].astype(np.int16)).mean())


def _changed_boxes(edit: Edit, found: Finding, kept: "_Kept") -> tuple[Box, ...]:
    """Where things may differ: what the edit changes, and where the picture has put it instead."""
    boxes = list(edit.changed_boxes)
    if edit.operation in ("add", "move") and isinstance(edit.new, Item):
        boxes += [item.box for item in kept.others if _same(edit.new, item)][:1]
    if edit.operation == "text" and isinstance(edit.new, Text):
        boxes += [text.box for text in kept.other_texts[:1]]
    return tuple(boxes)


# What stays.


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What stays as it was found, in the order of ``Edit.kept``, None where it is gone; and what else was found."""

    items: tuple[FoundItem | None, ...]
    others: tuple[FoundItem, ...]
    texts: tuple[FoundText | None, ...]
    other_texts: tuple[FoundText, ...]


def _kept(edit: Edit, found: Finding) -> _Kept:
    left, left_texts = list(found.items), list(found.texts)
    items: list[FoundItem | None] = []
    for number, _ in edit.kept:
        wanted = edit.before.items[number]
        near = [
            item for item in left if _same(wanted, item) and _apart(wanted.centre, item.centre) <= FARTHEST
        ]
        item = min(near, key=lambda item: _apart(wanted.centre, item.centre), default=None)
        items.append(item)
        if item is not None:
            left.remove(item)
    texts: list[FoundText | None] = []
    for written in _kept_texts(edit):
        text = next((t for t in left_texts if (t.text, t.colour) == (written.content, written.colour)), None)
        texts.append(text)
        if text is not None:
            left_texts.remove(text)
    return _Kept(tuple(items), tuple(left), tuple(texts), tuple(left_texts))


def _kept_texts(edit: Edit) -> list[Text]:
    return [text for number, text in enumerate(edit.before.texts) if number != edit.text]


def _lost(edit: Edit, found: Finding, kept: _Kept) -> Iterator[str]:
    """What did not stay, and what is there that should not be."""
    for (number, _), item in zip(edit.kept, kept.items, strict=True):
        if item is None:
            wanted = edit.before.items[number]
            yield f"{wanted.colour} {wanted.shape}: not where it was"
    for written, text in zip(_kept_texts(edit), kept.texts, strict=True):
        if text is None:
            yield f"text {written.content!r}: not as it was"
    # What the edit itself should have changed is looked for elsewhere.
    own = [item for item in kept.others if _concerned(edit, item)]
    for item in (*own[1:], *(item for item in kept.others if item not in own)):
        yield f"{item.colour} {item.shape}: was not there"
    for text in kept.other_texts[(edit.text is not None) :]:
        yield f"text {text.text!r}: was not there"
    if any(not _was_of_old(edit, box) for box in found.leftovers):
        yield "something without a name: was not there"


def _was_of_old(edit: Edit, box: Box) -> bool:
    """Whether a box is in part where the item was that the edit takes away or changes."""
    if not isinstance(edit.old, Item):
        return False
    left, top, right, bottom = edit.old.box
    return left < box[2] and box[0] < right and top < box[3] and box[1] < bottom


def _concerned(edit: Edit, item: FoundItem) -> bool:
    """Whether an item is what the edit changes: like it before or after, or in its place."""
    parts = [part for part in (edit.old, edit.new) if isinstance(part, Item)]
    return any(_same(part, item) or _apart(part.centre, item.centre) < part.size / 2 for part in parts)


# What changes.


def _missing(edit: Edit, found: Finding, kept: _Kept) -> Iterator[str]:
    """What the edit asks for and the picture does not show."""
    old, new = edit.old, edit.new
    match edit.operation:
        case "background":
            assert new is not None and not isinstance(new, Item | Text)
            yield from background_reasons(new, found)
        case "text":
            assert isinstance(new, Text)
            if not any(text.text == new.content and text.colour == new.colour for text in kept.other_texts):
                seen = " and ".join(repr(f"{t.colour} {t.text}") for t in kept.other_texts) or "nothing"
                yield f"{new.colour} text {new.content!r}: {seen} is written"
        case "remove":
            assert isinstance(old, Item)
            if any(
                _same(old, item) or _apart(old.centre, item.centre) < old.size / 2 for item in kept.others
            ):
                yield f"{old.colour} {old.shape}: still there"
        case "recolour" | "replace":
            assert isinstance(new, Item)
            if not any(
                _same(new, item) and _apart(new.centre, item.centre) < new.size / 2 for item in kept.others
            ):
                yield f"{new.colour} {new.shape}: not there"
        case "add" | "move":
            assert isinstance(new, Item)
            candidates = [item for item in kept.others if _same(new, item)]
            if isinstance(old, Item) and len(candidates) > 1:
                yield f"{old.colour} {old.shape}: there more than once"
            elif not candidates:
                yield f"{new.colour} {new.shape}: not there"
            elif isinstance(old, Item) and _apart(old.centre, candidates[0].centre) <= FARTHEST:
                yield f"{new.colour} {new.shape}: has not moved"
            elif edit.where is not None and not _stands(edit.where, candidates[0], old, edit, found):
                yield f"{new.colour} {new.shape}: in another place"
    if isinstance(old, Item) and any(_was_of_old(edit, box) for box in found.leftovers):
        yield f"{old.colour} {old.shape}: something is left of it"


def _stands(where: Where, item: FoundItem, old: object, edit: Edit, found: Finding) -> bool:
    height, width = found.height, found.width
    match where:
        case Corner(place):
            return place_of(item.centre, height, width, found.slack) == place
        case Toward(direction):
            assert isinstance(old, Item)
            return direction in relations_between(item.centre, old.centre, height, width, found.slack)
        case Beside(relation, other):
            # The item is where it was, or it is missed already.
            centre = edit.after.items[other].centre
            return relation in relations_between(item.centre, centre, height, width, found.slack)


def _same(wanted: Item, item: FoundItem) -> bool:
    return (wanted.shape, wanted.colour) == (item.shape, item.colour)


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    return math.hypot(one[0] - other[0], one[1] - other[1])
