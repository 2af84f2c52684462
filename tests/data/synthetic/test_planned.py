"""Scenes on request show what was asked for, by the rules of the world."""

import dataclasses

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.planned import Plan, compose
from mammoth_jax.data.synthetic.relations import RELATIONS, place_of, relations
from mammoth_jax.data.synthetic.render import boxes_meet
from mammoth_jax.data.synthetic.scene import Plain
from mammoth_jax.data.synthetic.split import ShapeRelation, held_out_in, is_held_out

SIZES = [(64, 64), (64, 96), (128, 64), (128, 128)]


def obeys_the_rules(scene) -> bool:
    things = (*scene.items, *scene.texts)
    inside = all(
        a >= 1 and b >= 1 and c <= scene.width - 1 and d <= scene.height - 1
        for a, b, c, d in (t.box for t in things)
    )
    clear = not any(boxes_meet(t.box, item.box) for t in scene.texts for item in scene.items)
    return inside and clear and all(item.visible >= 0.75 for item in scene.items)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("text", [None, "A", "QUARTZ"])
def test_six_of_a_shape_are_there_with_any_text(height, width, text):
    plan = Plan((("star", "red"),) * 6, text=text, others=2)
    for index in range(60):
        scene = compose(plan, height, width, Draws(0, 9, index))
        assert [item.colour for item in scene.items if item.shape == "star"] == ["red"] * 6
        assert [t.content for t in scene.texts] == ([text] if text else [])
        assert obeys_the_rules(scene) and not held_out_in(scene)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("text", [None, "QUARTZ"])
def test_two_things_stand_in_the_relation_and_in_no_other(relation, text):
    allowed = frozenset(
        c
        for c in (
            ShapeRelation(a, r, b) for a, b in (("ring", "square"), ("square", "ring")) for r in RELATIONS
        )
        if is_held_out(c)
    )
    plan = Plan((("ring", "red"), ("square", "blue")), relation, text=text, others=2, allowed=allowed)
    for index in range(60):
        scene = compose(plan, 64, 64, Draws(1, 9, index))
        first, second = scene.items[:2]
        assert (first.shape, second.shape) == ("ring", "square")
        assert relations(first, second, 64, 64) == (relation,)
        assert obeys_the_rules(scene)


def test_other_things_are_neither_of_the_core_nor_absent():
    plan = Plan((("star", "red"),), others=4, absent=("circle", "ring"))
    counts = set()
    for index in range(100):
        shapes = [item.shape for item in compose(plan, 64, 64, Draws(2, 9, index)).items]
        assert shapes.count("star") == 1 and not {"circle", "ring"} & set(shapes)
        counts.add(len(shapes))
    assert 5 in counts and max(counts) <= 6


def test_background_and_colour_of_the_text_are_as_asked_where_they_are_legible():
    plan = Plan((), text="CAT", text_colour="black", background=Plain("mint"))
    scene = compose(plan, 64, 64, Draws(3, 9, 0))
    assert scene.background == Plain("mint") and scene.texts[0].colour == "black" and not scene.items
    dark = compose(dataclasses.replace(plan, background=Plain("navy")), 64, 64, Draws(3, 9, 0))
    assert dark.texts[0].colour != "black"


@pytest.mark.parametrize(
    ("plan", "side", "message"),
    [
        (Plan((("star", "red"),)), 48, "at least 64 pixels"),
        (Plan(text="ABCDEFGHIJ"), 64, "'ABCDEFGHIJ' is too long"),
    ],
)
def test_what_cannot_be_shown_is_refused(plan, side, message):
    with pytest.raises(InputError, match=message):
        compose(plan, side, side, Draws(0, 9, 0))


def test_a_corner_is_named_away_from_the_middle_lines():
    assert place_of((10, 10), 64, 64) == "top left"
    assert place_of((60, 50), 64, 128) is None
    assert place_of((120, 50), 64, 128) == "bottom right"
    assert place_of((44, 30), 64, 64) is None
