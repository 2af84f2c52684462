"""GenEval's rules, and what goes beyond them."""

import dataclasses

import pytest

from mammoth_jax.data.synthetic.prompt_spec import Include, PromptSpec, Written
from mammoth_jax.data.synthetic.questions import Question
from mammoth_jax.data.synthetic.scene import Gradient, Plain
from mammoth_jax.data.synthetic.score.answer import judge_answer
from mammoth_jax.data.synthetic.score.findings import Finding, FoundBackground, FoundItem, FoundText
from mammoth_jax.data.synthetic.score.judge import judge


def item(shape, colour, x=30.0, y=30.0, confidence=0.9) -> FoundItem:
    return FoundItem(shape, colour, (x, y), (x - 8, y - 8, x + 8, y + 8), 200.0, confidence)


def finding(*items, texts=(), background=None) -> Finding:
    return Finding(64, 64, background, items, tuple(FoundText(t, c, (0, 0, 9, 9)) for t, c in texts))


def spec(category, *include, texts=(), background=None) -> PromptSpec:
    return PromptSpec(category, include, texts, background)


def test_more_than_asked_for_is_right_but_when_counting():
    two = finding(item("star", "red"), item("star", "red"), item("ring", "blue"))
    assert judge(spec("single_object", Include("star")), two).correct
    assert judge(spec("counting", Include("star", 2)), two).correct
    assert not judge(spec("counting", Include("star", 1)), two).correct
    assert not judge(spec("counting", Include("star", 3)), two).correct


def test_what_is_only_somewhat_like_a_shape_is_none_of_those_asked_for_but_one_too_many():
    vague, clear = item("star", "red", confidence=0.5), item("star", "red")
    assert not judge(spec("single_object", Include("star")), finding(vague)).correct
    assert judge(spec("single_object", Include("star")), finding(vague, clear)).correct
    assert not judge(spec("counting", Include("star", 2)), finding(vague, clear)).correct
    assert not judge(spec("counting", Include("star", 1)), finding(vague, clear)).correct


def test_captions_that_name_everything_allow_nothing_else():
    two = finding(item("star", "red"), item("ring", "blue"))
    parts = Include("star", 1, "red"), Include("ring", 1, "blue")
    assert judge(spec("world", *parts), two).correct
    verdict = judge(spec("world", parts[0]), two)
    assert not verdict.correct and "blue ring" in verdict.reasons[0]


def test_debris_is_something_else_where_everything_is_named():
    clean = finding(texts=[("CAT", "red")])
    debris = dataclasses.replace(clean, leftovers=((1.0, 1.0, 9.0, 9.0),))
    wanted = spec("text", texts=(Written("CAT"),))
    assert judge(wanted, clean).correct and not judge(wanted, debris).correct
    assert judge(dataclasses.replace(wanted, category="single_object"), debris).correct


def test_colours_belong_to_their_shapes():
    seen = finding(item("star", "blue"), item("ring", "red"))
    assert not judge(spec("color_attr", Include("star", 1, "red"), Include("ring", 1, "blue")), seen).correct
    assert judge(spec("two_object", Include("star"), Include("ring")), seen).correct


@pytest.mark.parametrize(
    ("relation", "right"), [("left of", True), ("right of", False), ("above", False), ("below", False)]
)
def test_positions_are_those_of_the_world(relation, right):
    seen = finding(item("star", "red", 15), item("ring", "red", 45))
    asked = spec("position", Include("ring"), Include("star", position=(relation, 0)))
    assert judge(asked, seen).correct == right


def test_a_position_is_that_of_the_surest_item():
    seen = finding(item("star", "red", 15), item("star", "red", 60, confidence=0.3), item("ring", "red", 45))
    asked = spec("position", Include("ring"), Include("star", position=("left of", 0)))
    assert judge(asked, seen).correct


def test_letters_count_one_by_one():
    asked = spec("text", texts=(Written("CAT"),))
    right = judge(asked, finding(texts=[("CAT", "red")]))
    assert right.correct and right.letters_right == 1
    wrong = judge(asked, finding(texts=[("CART", "red")]))
    assert not wrong.correct and wrong.letters_right == 2 / 4
    nothing = judge(asked, finding())
    assert not nothing.correct and nothing.letters_right == 0
    assert not judge(asked, finding(texts=[("CAT", "red"), ("A", "red")])).correct
    assert judge(spec("colors"), finding()).letters_right is None


def test_texts_have_the_colour_that_was_asked_for():
    seen = finding(texts=[("CAT", "red")])
    assert judge(spec("text", texts=(Written("CAT", "red"),)), seen).correct
    assert not judge(spec("text", texts=(Written("CAT", "blue"),)), seen).correct


def test_backgrounds_have_the_kind_and_the_colours_that_were_asked_for():
    seen = finding(background=FoundBackground("gradient", ("mint", "sky")))
    asked = spec("world", background=Gradient("sky", "mint", "down"))
    assert judge(asked, seen).correct
    for other in (Gradient("sky", "silver", "down"), Plain("sky")):
        assert not judge(dataclasses.replace(asked, background=other), seen).correct
    assert not judge(asked, finding()).correct


@pytest.mark.parametrize(
    ("answer", "given", "right"),
    [
        ("two", "Two.", True),
        ("two", " two ", True),
        ("two", "two stars", False),
        ("三个", "三个。", True),
        ("三个", "两个", False),
        ("CJRUZ", "cjruz", True),
        ("CJRUZ", "", False),
    ],
)
def test_answers_are_compared_without_case_space_and_full_stop(answer, given, right):
    assert judge_answer(Question("count", "count star", "?", answer), given) == right
