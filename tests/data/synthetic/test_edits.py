"""Edits: one thing changes, everything else stays, and the words say which."""

import re
from collections import Counter

import numpy as np
import pytest

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import (
    OPERATIONS,
    Beside,
    Corner,
    Edit,
    Toward,
    reverse,
    sample_edit,
)
from mammoth_jax.data.synthetic.instructions import instruction
from mammoth_jax.data.synthetic.language import LANGUAGES, speaker
from mammoth_jax.data.synthetic.render import boxes_meet, render, visible_share
from mammoth_jax.data.synthetic.scene import Item, Plain, Scene
from mammoth_jax.data.synthetic.split import Word, held_out_in, is_held_out
from tests.data.synthetic.reader import COLOURS, SHAPES, sides_of

EACH = 40


def edits(split: str, operation: str, stream: int = 9):
    for index in range(EACH):
        draws = Draws(0, stream, index)
        edit = sample_edit(split, operation, 64, 64, draws)  # type: ignore[arg-type]
        yield edit, instruction(edit, speaker(LANGUAGES[index % 2], draws), draws)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_one_thing_changes_and_the_rest_is_bit_identical(split, operation):
    for edit, _ in edits(split, operation):
        assert edit.operation == operation
        before, after = edit.before, edit.after
        assert before != after and (before.height, before.width) == (after.height, after.width)
        if operation != "background":
            assert before.background == after.background
        if operation != "text":
            assert before.texts == after.texts
        assert len(edit.kept) >= len(before.items) - 1
        for old, new in edit.kept:
            assert [getattr(before.items[old], f) for f in ("shape", "colour", "centre", "size")] == [
                getattr(after.items[new], f) for f in ("shape", "colour", "centre", "size")
            ]
        outside = np.ones((64, 64), bool)
        for left, top, right, bottom in edit.changed_boxes:
            outside[int(top) : int(bottom), int(left) : int(right)] = False
        a, b = render(before), render(after)
        assert (a[outside] == b[outside]).all() and (a != b).any()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_both_scenes_of_train_are_of_train_and_results_of_heldout_are_held_out(operation):
    for edit, _ in edits("train", operation):
        assert not held_out_in(edit.before) and not held_out_in(edit.after)
    made = 0
    for edit, _ in edits("heldout", operation):
        assert held_out_in(edit.after)
        made += not held_out_in(edit.before)
    if operation != "background":  # which makes no combination
        assert made >= EACH / 10


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_result_obeys_the_rules_of_the_world(operation):
    for edit, _ in edits("train", operation, stream=10):
        for scene in (edit.before, edit.after):
            for number, item in enumerate(scene.items):
                left, top, right, bottom = item.box
                assert left >= 1 and top >= 1 and right <= 63 and bottom <= 63
                assert item.visible == visible_share(item, scene.items[number + 1 :], 64, 64) >= 0.75
                assert not any(boxes_meet(item.box, text.box) for text in scene.texts)
            assert 1 <= len(scene.items) <= 6


def meant(words: str, scene: Scene) -> list[Item]:
    """The items that ``the red circle`` or 红色的圆形 can mean."""
    for chinese, english in {**COLOURS, **SHAPES}.items():
        words = words.replace(chinese, f" {english} ")
    words = words.lower()
    colour = next((c for c in COLOURS.values() if c in words.split()), None)
    shape = next(s for s in SHAPES.values() if s in words.split())
    return [item for item in scene.items if item.shape == shape and colour in (None, item.colour)]


REMOVED = re.compile(
    r"(?:remove|delete|erase|take|get rid of) (the [a-z ]+?)(?: away)?\.?$"
    r"|(?:去掉|删除|移除|擦掉|把)(.+?)(?:去掉)?。?$",
    re.IGNORECASE,
)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_what_is_to_go_is_meant_and_nothing_else(split):
    for edit, said in edits(split, "remove"):
        found = REMOVED.match(said)
        assert found, said
        assert meant(found[1] or found[2], edit.before) == [edit.old], said
        assert edit.new is None and len(edit.after.items) == len(edit.before.items) - 1


RECOLOURED = re.compile(
    r"(?:.*?)(the (?!color)[a-z ]*?(?:circle|square|triangle|diamond|cross|star|heart|ring|crescent|arrow))"
    r" (?:to |should be )?([a-z]+)\.?$|(?:把|将|让)(.+?)(?:的颜色改为|变成|改成|涂成)(..)。?$",
    re.IGNORECASE,
)


def test_a_new_colour_is_said_of_the_item_that_gets_it():
    for edit, said in edits("train", "recolour"):
        found = RECOLOURED.match(said)
        assert found, said
        colour = found[2] or COLOURS[found[4]]
        assert isinstance(edit.new, Item) and isinstance(edit.old, Item)
        assert colour == edit.new.colour != edit.old.colour, said
        assert meant(found[1] or found[3], edit.before) == [edit.old], said


@pytest.mark.parametrize("operation", ["add", "move"])
def test_the_place_that_is_said_is_where_it_goes(operation):
    kinds = Counter()
    for edit, said in edits("train", operation):
        new, old = edit.new, edit.old
        assert isinstance(new, Item)
        kinds[type(edit.where)] += 1
        match edit.where:
            case Beside(relation, other):
                beside = edit.after.items[other]
                assert sides_of(new, beside, edit.after) == {relation.split()[0]}
                assert not isinstance(old, Item) or relation.split()[0] not in sides_of(
                    old, beside, edit.before
                )
                assert re.search(
                    {"left": "left|左", "right": "right|右", "above": "above|上"}.get(
                        relation.split()[0], "below|under|下"
                    ),
                    said,
                )
            case Corner(place):
                assert (new.centre[1] < 32) == place.startswith("top")
                assert (new.centre[0] < 32) == place.endswith("left")
                assert place in said or "上下"[place.startswith("bottom")] in said
            case Toward(direction):
                assert isinstance(old, Item) and sides_of(new, old, edit.after) == {direction.split()[0]}
                assert new.centre[0] == old.centre[0] or new.centre[1] == old.centre[1]
            case None:
                assert operation == "add" and not re.search("left|right|above|below|under|左|右|边|侧", said)
    assert {Beside, Corner} <= set(kinds) and ((Toward in kinds) == (operation == "move"))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_new_word_is_of_the_split_and_is_said(split):
    words = 0
    for edit, said in edits(split, "text"):
        old, new = edit.old, edit.new
        if old.content == new.content:  # type: ignore[union-attr]
            assert old.colour != new.colour  # type: ignore[union-attr]
        else:
            words += 1
            assert f'"{new.content}"' in said or f"“{new.content}”" in said  # type: ignore[union-attr]
            if split == "train":
                assert not is_held_out(Word(new.content))  # type: ignore[union-attr]
    assert words > EACH / 3


def test_the_way_back_is_an_edit_too():
    ways = Counter()
    for operation in OPERATIONS:
        for index in range(20):
            draws = Draws(0, 11, index)
            edit = sample_edit("train", operation, 64, 64, draws)
            back = reverse(edit, draws)
            if back is None:
                continue
            ways[operation, back.operation] += 1
            assert (back.before, back.after) == (edit.after, edit.before)
            assert (back.old, back.new) == (edit.new, edit.old)
            assert instruction(back, speaker("en", draws), draws)
    same = {(o, o) for o in OPERATIONS if o not in ("add", "remove")}
    assert set(ways) == same | {("add", "remove"), ("remove", "add")}


def test_an_item_that_cannot_be_told_from_others_is_not_referred_to():
    items = tuple(Item("circle", "red", (14.0 + 20 * n, 32.0), 12.0) for n in range(2))
    scene = Scene(64, 64, Plain("gray"), items, ())
    after = Scene(64, 64, Plain("gray"), items[:1], ())
    assert reverse(Edit("add", after, scene, None, 1), Draws(0, 9, 0)) is None


def test_a_scorer_reads_what_changed_and_what_stays():
    items = (Item("circle", "red", (14.0, 20.0), 12.0), Item("star", "blue", (44.0, 20.0), 12.0))
    scene = Scene(64, 64, Plain("gray"), items, ())
    after = Scene(64, 64, Plain("gray"), (items[0], Item("star", "pink", (44.0, 20.0), 12.0)), ())
    found = Edit("recolour", scene, after, 1, 1).to_dict()
    assert found["operation"] == "recolour"
    assert (found["old"]["color"], found["new"]["color"], found["new"]["class"]) == ("blue", "pink", "star")
    assert [part["class"] for part in found["kept"]] == ["circle"]
    assert found["changed_boxes"] == [[38.0, 14.0, 50.0, 26.0]] * 2


def test_a_scene_that_is_edited_is_of_the_whole_world():
    """Overlaps, texts, one to six items and all backgrounds occur before edits."""
    scenes = [edit.before for operation in OPERATIONS for edit, _ in edits("train", operation)]
    assert {len(scene.items) for scene in scenes} == {1, 2, 3, 4, 5, 6}
    assert len({type(scene.background) for scene in scenes}) == 5
    assert any(scene.texts for scene in scenes) and any(i.visible < 1 for s in scenes for i in s.items)
