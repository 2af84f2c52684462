"""Riddles, solved anew: the prompt has one solution, the reasoning arrives at it and the scene shows it."""

import re

import pytest

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.language import LANGUAGES
from mammoth_jax.data.synthetic.reasoning import RIDDLE_KINDS, riddle
from mammoth_jax.data.synthetic.split import (
    ShapeColour,
    ShapeRelation,
    Word,
    held_out_in,
    is_held_out,
)
from tests.data.synthetic.reader import COLOURS, SHAPES, Reading, sides_of

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHINESE = "零一二三四五六七八九"
NAMES = "|".join(ENGLISH)
SUM = re.compile(rf"({NAMES}) (plus|minus|times) ({NAMES})|([{CHINESE}])([加减乘])([{CHINESE}])")
COUNTS = {
    **dict.fromkeys(("noses", "鼻子"), 1),
    **dict.fromkeys(("cat has eyes", "wings", "猫的眼睛", "翅膀"), 2),
    **dict.fromkeys(("triangle has corners", "traffic light", "三角形的角", "红绿灯"), 3),
    **dict.fromkeys(("dog has legs", "square has sides", "wheels", "狗的腿", "正方形的边", "轮子"), 4),
    **dict.fromkeys(("fingers", "手指"), 5),
    **dict.fromkeys(("ant has legs", "faces", "蚂蚁的腿", "骰子"), 6),
}
THINGS = {
    "red": ("tomato", "fire truck", "番茄", "消防车"),
    "orange": ("carrot", "pumpkin", "胡萝卜", "南瓜"),
    "yellow": ("banana", "lemon", "香蕉", "柠檬"),
    "green": ("grass", "frog", "草地", "青蛙"),
    "blue": ("sea", "blueberry", "大海", "蓝莓"),
    "purple": ("grape", "eggplant", "葡萄", "茄子"),
    "pink": ("flamingo", "pig", "火烈鸟", "小猪"),
    "brown": ("chocolate", "coffee", "巧克力", "咖啡"),
    "black": ("coal", "night", "煤炭", "黑夜"),
    "white": ("snow", "milk", "雪", "牛奶"),
}
MIXED = {
    frozenset(("red", "yellow")): "orange",
    frozenset(("blue", "yellow")): "green",
    frozenset(("red", "blue")): "purple",
    frozenset(("red", "white")): "pink",
}
DESCRIBED = {
    "circle": ("full moon", "满月"),
    "square": ("right angles", "直角"),
    "triangle": ("three corners", "有三个角"),
    "diamond": ("stands on a corner", "立在一个角上"),
    "cross": ("plus sign", "加号"),
    "star": ("five points", "五个尖"),
    "heart": ("love", "代表爱"),
    "ring": ("with a hole", "有洞"),
    "crescent": ("new moon", "弯弯的月亮"),
    "arrow": ("points up", "指向上面"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def riddles(split: str, kind: str, count: int = 150):
    for index in range(count):
        yield riddle(split, kind, 64, 64, Draws(0, 9, index), LANGUAGES[index % 2])


def shapes_in(text: str) -> list[str]:
    names = "|".join((*SHAPES, *SHAPES.values()))
    return [SHAPES.get(name, name) for name in re.findall(names, text)]


def colour_of(prompt: str) -> str:
    """The colour that a prompt asks for."""
    for colour, things in THINGS.items():
        if any(re.search(rf"\b{thing}\b" if thing.isascii() else thing, prompt) for thing in things):
            return colour
    named = [COLOURS.get(n, n) for n in re.findall("|".join((*COLOURS, *COLOURS.values())), prompt)]
    return named[0] if len(named) == 1 else MIXED[frozenset(named)]


def count_of(prompt: str) -> int:
    found = SUM.search(prompt)
    if not found:
        return next(count for words, count in COUNTS.items() if words in prompt)
    a, way, b, c, sign, d = found.groups()
    one, other = (ENGLISH.index(a), ENGLISH.index(b)) if a else (CHINESE.index(c), CHINESE.index(d))
    return {"plus": one + other, "minus": one - other, "times": one * other}[
        way or {"加": "plus", "减": "minus", "乘": "times"}[sign]
    ]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_amounts(split):
    sums = 0
    for asked in riddles(split, "amount"):
        prompt = asked.prompt[0].lower() + asked.prompt[1:]
        shape = shapes_in(prompt)[0]
        expected = [(shape, colour_of(prompt))] * count_of(prompt)
        assert [(item.shape, item.colour) for item in asked.scene.items] == expected, asked
        assert bool(held_out_in(asked.scene)) == (split == "heldout")
        sums += bool(SUM.search(prompt))
    assert 70 < sums < 140


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_things(split):
    for asked in riddles(split, "thing"):
        described = [s for s, words in DESCRIBED.items() if any(w in asked.prompt for w in words)]
        shape = described[0] if described else shapes_in(asked.prompt)[0]
        (item,) = asked.scene.items
        assert (item.shape, item.colour) == (shape, colour_of(asked.prompt)), asked
        assert is_held_out(ShapeColour(item.shape, item.colour)) == (split == "heldout")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_arrangements(split):
    for asked in riddles(split, "arrangement"):
        first, second = asked.scene.items
        named = shapes_in(asked.prompt)[:2]
        if [first.shape, second.shape] != named:
            first, second = second, first
        assert [first.shape, second.shape] == named
        side = next(iter(Reading(asked.reasoning).sides))[1]
        assert sides_of(first, second, asked.scene) == {side}
        words = {"left": "left|左", "right": "right|右", "above": "above|上", "below": "below|under|下"}
        assert re.search(words[OPPOSITE[side]], asked.prompt) and not re.search(words[side], asked.prompt)
        assert bool(held_out_in(asked.scene)) == (split == "heldout")
        if ";" in asked.prompt or "颜色" in asked.prompt:
            assert first.colour == colour_of(asked.prompt)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_words(split):
    for asked in riddles(split, "word"):
        (given,) = re.findall(r"[\"“](\w+)[\"”]", asked.prompt)
        assert [text.content for text in asked.scene.texts] == [given[::-1]] and not asked.scene.items
        assert is_held_out(Word(given[::-1])) == (split == "heldout")
        if split == "train":
            assert not is_held_out(Word(given))
        comma = ", " if asked.language == "en" else "、"
        assert comma.join(given) in asked.reasoning and comma.join(given[::-1]) in asked.reasoning


@pytest.mark.parametrize("kind", RIDDLE_KINDS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_reasoning_ends_with_a_true_caption_and_the_specification_agrees(split, kind):
    for asked in riddles(split, kind, 100):
        end = re.split("so: |so draw |所以画|所以是", asked.reasoning)
        assert len(end) == 2 and len(asked.reasoning) < 160
        assert not Reading(end[1]).wrong(asked.scene), asked
        found = [(part.shape, part.colour, part.count) for part in asked.spec.include]
        for shape, colour, count in found:
            assert count == sum(i.shape == shape and colour in (None, i.colour) for i in asked.scene.items)
        assert sum(count for *_, count in found) == len(asked.scene.items)
        assert [text.content for text in asked.spec.texts] == [text.content for text in asked.scene.texts]


def test_the_prompt_of_train_does_not_say_a_held_out_relation_either():
    for asked in riddles("train", "arrangement"):
        for part in asked.spec.include:
            if part.position:
                relation, target = part.position
                first, second = part.shape, asked.spec.include[target].shape
                for a, b in ((first, second), (second, first)):
                    if relation in ("left of", "right of"):
                        assert not is_held_out(ShapeRelation(a, "left of", b))
                    else:
                        assert not is_held_out(ShapeRelation(a, "above", b))
