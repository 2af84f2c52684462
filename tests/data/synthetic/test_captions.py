"""Captions against their scenes, read by code that shares nothing with what wrote them."""

import dataclasses
from collections import Counter
from typing import get_args

import pytest

from mammoth_jax.data.synthetic.captions import Style, caption
from mammoth_jax.data.synthetic.drawings import CATEGORIES, drawing, plan_for
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.language import LANGUAGES
from mammoth_jax.data.synthetic.prompt_spec import Include, PromptSpec, Written
from mammoth_jax.data.synthetic.scene import Item, Plain, Scene, Text
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.split import (
    ShapeColour,
    ShapeCount,
    ShapeRelation,
    Word,
    held_out_in,
    is_held_out,
)
from mammoth_jax.data.synthetic.vocabulary import COLOURS, SHAPES
from tests.data.synthetic.reader import Reading, fits, sides_of


def wrong_spec(spec: PromptSpec, scene: Scene) -> str:
    """What a scene lacks of a specification."""
    groups = [[item for item in scene.items if fits(item, (p.colour, p.shape))] for p in spec.include]
    for part, found in zip(spec.include, groups, strict=True):
        if len(found) != part.count:
            return f"{part}: {len(found)}"
        if part.position:
            side, target = part.position[0].split()[0], groups[part.position[1]]
            if not all(side in sides_of(a, b, scene) for a in found for b in target):
                return f"{part}: not there"
    if sum(part.count for part in spec.include) != len(scene.items):
        return "items that are not asked for"
    if [text.content for text in spec.texts] != [text.content for text in scene.texts]:
        return "texts"
    if any(t.colour not in (None, s.colour) for t, s in zip(spec.texts, scene.texts, strict=True)):
        return "colours of texts"
    return "" if spec.background in (None, scene.background) else "background"


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_any_scene_are_true_and_complete(split, language):
    source = SyntheticScenes(split, seed=3)
    for index in range(120):
        scene = source.scene(index)
        for number, style in enumerate(get_args(Style)):
            said = caption(scene, Draws(number, 9, index), language, style)
            assert not Reading(said.text).wrong(scene), (said.text, scene)
            assert not wrong_spec(said.spec, scene), (said.spec, scene)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_drawings_show_what_their_captions_say(split, category):
    texts = set()
    for index in range(100):
        made = drawing(split, category, 64, 64, Draws(0, 9, index), LANGUAGES[index % 2])
        reading = Reading(made.caption.text)
        assert not reading.wrong(made.scene), (made.caption.text, made.scene)
        assert not wrong_spec(made.caption.spec, made.scene)
        assert made.caption.spec.category == category
        assert bool(held_out_in(made.scene)) == (split == "heldout")
        texts.add(made.caption.text)
    assert len(texts) > 70


def test_a_changed_scene_contradicts_its_caption():
    """The reader itself: one attribute changed, and the caption of all of it is no longer true."""
    source, caught, changes = SyntheticScenes("train", seed=4), 0, 0
    for index in range(100):
        scene = source.scene(index)
        said = caption(scene, Draws(0, 9, index), LANGUAGES[index % 2], "full")
        for changed in changed_scenes(scene):
            changes += 1
            caught += bool(Reading(said.text).wrong(changed)) and bool(wrong_spec(said.spec, changed))
    assert changes > 300 and caught == changes


def changed_scenes(scene: Scene):
    item, *rest = scene.items
    after = [c for c in COLOURS if c != item.colour]
    other = [s for s in SHAPES if s != item.shape]
    yield dataclasses.replace(scene, items=(dataclasses.replace(item, colour=after[0]), *rest))
    yield dataclasses.replace(scene, items=(dataclasses.replace(item, shape=other[0]), *rest))
    yield dataclasses.replace(scene, items=tuple(rest))
    yield dataclasses.replace(scene, items=(item, *scene.items))
    for text in scene.texts:
        yield dataclasses.replace(scene, texts=(dataclasses.replace(text, content=text.content + "Q"),))


def names_a_held_out_one(category: str, made) -> bool:
    """Whether the caption, as read, names the combination that its category holds out."""
    reading = Reading(made.caption.text)
    things = [thing for _, thing in reading.things]
    if category in ("single_object", "colors", "two_object", "color_attr"):
        return any(c and is_held_out(ShapeColour(s, c)) for c, s in things)
    if category == "counting":
        return is_held_out(ShapeCount(things[0][1], sum(n for n, _ in reading.things)))
    if category == "text":
        return all(is_held_out(Word(word)) for word, _ in reading.words)
    ((_, first), side, (_, second)) = reading.sides[0]
    if side in ("right", "below"):
        first, second = second, first
    relation = "left of" if side in ("left", "right") else "above"
    return is_held_out(ShapeRelation(first, relation, second))


@pytest.mark.parametrize("category", [c for c in CATEGORIES if c != "world"])
def test_held_out_prompts_name_what_is_held_out(category):
    for index in range(100):
        made = drawing("heldout", category, 64, 64, Draws(1, 9, index), LANGUAGES[index % 2])
        assert names_a_held_out_one(category, made), made.caption.text


def test_held_out_combinations_are_drawn_evenly():
    """Each of the 45 relations in 900 prompts between 5 and 45 times (the mean is 20)."""
    counts = Counter(
        next(iter(plan_for("heldout", "position", 64, 64, Draws(2, 9, index)).allowed))
        for index in range(900)
    )
    assert len(counts) == 45 and min(counts.values()) >= 5 and max(counts.values()) <= 45


def test_a_count_that_is_held_out_is_not_said_of_a_part_either():
    items = [Item("circle", c, (10.0 + 14 * n, 20.0), 12.0) for n, c in enumerate(("red", "red", "blue"))]
    scene = Scene(64, 64, Plain("gray"), tuple(items), ())
    assert is_held_out(ShapeCount("circle", 2))
    for index in range(20):
        said = caption(scene, Draws(0, 9, index), "en", "colours")
        assert "two" not in said.text and said.text.lower().count("red circle") == 2
        assert Include("circle", 2, "red") in said.spec.include


def test_every_phrasing_occurs():
    source = SyntheticScenes("train")
    starts = {"en": set(), "zh": set()}
    for index in range(600):
        said = caption(source.scene(index % 50), Draws(5, 9, index), LANGUAGES[index % 2], "names")
        starts[said.language].add(said.text[:2])
    assert {"dr", "a ", "an", "sh", "Cr", "pl", "pa", "tw"} <= starts["en"]
    assert {"画一", "请画", "图片", "画面", "一张", "生成"} <= starts["zh"]


def test_a_specification_is_written_as_geneval_has_it():
    spec = PromptSpec(
        "position",
        (Include("square", 1, "blue"), Include("circle", 1, "red", ("left of", 0))),
        (Written("CAT", "red"), Written("7")),
        Plain("mint"),
    )
    assert spec.to_dict() == {
        "tag": "position",
        "include": [
            {"class": "square", "count": 1, "color": "blue"},
            {"class": "circle", "count": 1, "color": "red", "position": ["left of", 0]},
        ],
        "text": [{"content": "CAT", "color": "red"}, {"content": "7"}],
        "background": {"type": "plain", "colors": ["mint"]},
    }
    counting = PromptSpec("counting", (Include("star", 2, "red"), Include("star", 1, "blue")))
    assert counting.without_colours().to_dict() == {
        "tag": "counting",
        "include": [{"class": "star", "count": 3}],
        "exclude": [{"class": "star", "count": 4}],
    }


def test_the_relation_style_takes_two_shapes_in_a_relation():
    items = (Item("circle", "red", (14.0, 32.0), 16.0), Item("square", "blue", (50.0, 32.0), 16.0))
    scene = Scene(64, 64, Plain("gray"), items, (Text("CAT", "black", (20, 50), 9),))
    seen = {caption(scene, Draws(0, 9, i), "en", "coloured relation").text for i in range(300)}
    assert 'a red circle left of a blue square and the word "CAT"' in seen
    assert 'a blue square to the right of a red circle and the word "CAT"' in seen
    assert any(
        "一个红色的圆形在一个蓝色的正方形的左边"
        in caption(scene, Draws(0, 9, i), "zh", "coloured relation").text
        for i in range(100)
    )
