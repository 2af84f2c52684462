"""Edits that were carried out, that were not, and that changed too much."""

import dataclasses

import numpy as np
import pytest

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import OPERATIONS, Corner, Edit, sample_edit
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Item, Plain, Scene
from mammoth_jax.data.synthetic.score.agreement import worse
from mammoth_jax.data.synthetic.score.edit_judge import judge_edit, mean_difference
from mammoth_jax.data.synthetic.tasks import SyntheticEdits

STAR, RING = Item("star", "red", (16.0, 20.0), 18.0), Item("ring", "blue", (46.0, 44.0), 20.0)
BEFORE = Scene(64, 64, Plain("silver"), (STAR, RING), ())


def recolouring() -> Edit:
    after = dataclasses.replace(BEFORE, items=(dataclasses.replace(STAR, colour="green"), RING))
    return Edit("recolour", BEFORE, after, 0, 0)


def shown(*items: Item) -> np.ndarray:
    return render(dataclasses.replace(BEFORE, items=items))


def off(picture: np.ndarray, by: int) -> np.ndarray:
    """A reconstruction that differs by so much everywhere."""
    return np.where(picture < 128, picture + by, picture - by).astype(np.uint8)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_asked_for_is_right_and_the_unchanged_copy_is_not(operation):
    random = np.random.default_rng(1)
    for index in range(5):
        edit = sample_edit("heldout", operation, 64, 64, Draws(3, 11, index))
        before, after = render(edit.before), worse(render(edit.after), "blur", random)
        coded = worse(before, "blur", random)
        verdict = judge_edit(edit, before, after, coded)
        assert verdict.correct, (index, verdict.reasons)
        copy = judge_edit(edit, before, before, coded)
        assert not copy.carried_out, index


def test_other_items_keep_shape_colour_and_place():
    edit, before = recolouring(), render(BEFORE)
    green = dataclasses.replace(STAR, colour="green")
    moved = dataclasses.replace(RING, centre=(41.0, 44.0))
    near = dataclasses.replace(RING, centre=(44.0, 44.0))
    other = dataclasses.replace(RING, colour="pink")
    circle = dataclasses.replace(RING, shape="circle")
    for wrong in (moved, other, circle):
        verdict = judge_edit(edit, before, shown(green, wrong), off(before, 100))
        assert verdict.carried_out and not verdict.preserved
    assert judge_edit(edit, before, shown(green, near), off(before, 100)).correct
    assert not judge_edit(edit, before, shown(green), off(before, 100)).preserved
    more = Item("heart", "pink", (48.0, 14.0), 14.0)
    assert not judge_edit(edit, before, shown(green, RING, more), off(before, 100)).preserved


def test_the_rest_may_differ_by_half_as_much_again_as_the_reconstruction():
    edit, before = recolouring(), render(BEFORE)
    coded, after = off(before, 4), render(edit.after)
    assert judge_edit(edit, before, off(after, 6), coded).correct
    verdict = judge_edit(edit, before, off(after, 7), coded)
    assert verdict.carried_out and not verdict.preserved


def test_the_difference_is_that_outside_the_boxes():
    one, other = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
    other[5:10, 5:10] = 200
    assert mean_difference(one, other) == pytest.approx(200 * 25 / 400)
    assert mean_difference(one, other, ((5.0, 5.0, 10.0, 10.0),)) == 0
    assert mean_difference(one, other, ((0.0, 0.0, 20.0, 20.0),)) == 0


def test_something_removed_leaves_nothing_else_behind():
    edit = Edit("remove", BEFORE, dataclasses.replace(BEFORE, items=(RING,)), 0)
    before = render(BEFORE)
    assert judge_edit(edit, before, shown(RING), off(before, 1)).correct
    assert not judge_edit(
        edit, before, shown(dataclasses.replace(STAR, colour="pink"), RING), off(before, 1)
    ).correct
    other = Item("heart", "pink", (46.0, 14.0), 14.0)
    verdict = judge_edit(edit, before, shown(other, RING), off(before, 100))
    assert verdict.carried_out and not verdict.preserved


@pytest.mark.parametrize("half", [np.s_[:, :16], np.s_[:20]], ids=["left", "upper"])
def test_what_is_half_erased_is_not_removed(half):
    after = dataclasses.replace(BEFORE, items=(RING,))
    before, right = render(BEFORE), render(after)
    edit = Edit("remove", BEFORE, after, 0, None)
    assert judge_edit(edit, before, right, off(before, 100)).correct
    left = right.copy()
    left[half] = before[half]
    verdict = judge_edit(edit, before, left, off(before, 100))
    assert not verdict.carried_out and verdict.reasons


def test_what_has_no_name_was_not_there():
    edit, before = recolouring(), render(BEFORE)
    picture = shown(dataclasses.replace(STAR, colour="green"), RING)
    picture[2:4, 36:60] = 0
    verdict = judge_edit(edit, before, picture, off(before, 100))
    assert verdict.carried_out and not verdict.preserved


@pytest.mark.parametrize(("operation", "index"), [("add", 72), ("move", 54), ("move", 23), ("add", 611)])
def test_what_stands_as_near_as_the_words_allow_is_right(operation, index):
    edit = SyntheticEdits(split="heldout", seed=5, operation=operation)[index].fields["edit"]
    before, after = render(edit.before), render(edit.after)
    assert judge_edit(edit, before, after, before).carried_out
    assert not judge_edit(edit, before, before, before).carried_out


def test_something_added_may_stand_elsewhere_unless_a_place_was_named():
    heart = Item("heart", "pink", (48.0, 14.0), 14.0)
    edit = Edit("add", BEFORE, dataclasses.replace(BEFORE, items=(STAR, RING, heart)), None, 2)
    elsewhere, before = dataclasses.replace(heart, centre=(18.0, 50.0)), render(BEFORE)
    assert judge_edit(edit, before, shown(STAR, RING, elsewhere), off(before, 1)).correct
    named = dataclasses.replace(edit, where=Corner("top right"))
    assert judge_edit(named, before, shown(STAR, RING, heart), off(before, 1)).correct
    assert not judge_edit(named, before, shown(STAR, RING, elsewhere), off(before, 1)).carried_out
