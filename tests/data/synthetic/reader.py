"""Reads captions, with word lists of its own, and says whether they are true of a scene."""

import math
import re

from mammoth_jax.data.synthetic.scene import Item, Scene

NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
NUMBERS |= {"一": 1, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6}
SHAPES = {
    "圆形": "circle",
    "正方形": "square",
    "三角形": "triangle",
    "菱形": "diamond",
    "十字": "cross",
    "星星": "star",
    "爱心": "heart",
    "圆环": "ring",
    "月牙": "crescent",
    "箭头": "arrow",
}
COLOURS = {
    "红色": "red",
    "橙色": "orange",
    "黄色": "yellow",
    "绿色": "green",
    "蓝色": "blue",
    "紫色": "purple",
    "粉色": "pink",
    "棕色": "brown",
    "黑色": "black",
    "白色": "white",
}
GROUNDS = {
    "灰色": "gray",
    "银色": "silver",
    "炭灰色": "charcoal",
    "薄荷色": "mint",
    "天蓝色": "sky",
    "淡紫色": "lavender",
    "米色": "beige",
    "蓝绿色": "teal",
    "藏青色": "navy",
}
PATTERNS = {"渐变": "Gradient", "gradient": "Gradient", "条纹": "Stripes", "stripes": "Stripes"}
PATTERNS |= {"格子": "Checks", "checks": "Checks", "云纹": "Noise", "clouds": "Noise"}
SIDES = {"left": "left", "right": "right", "above": "above", "below": "below", "under": "below"}
SIDES |= {"左": "left", "右": "right", "上": "above", "下": "below"}

_SHAPE = "|".join(SHAPES.values())
_COLOUR = "|".join(COLOURS.values())
_ENGLISH_THING = rf"({_COLOUR})? ?({_SHAPE})"
_ENGLISH = re.compile(rf"\b({'|'.join(n for n in NUMBERS if n.isascii())}) {_ENGLISH_THING}(?:es|s)?\b")
_ENGLISH_SIDE = re.compile(
    rf"(?:an?|the) {_ENGLISH_THING} (?:is )?(?:to the )?(left|right|above|below|under)(?: of)? (?:an?|the) "
    rf"{_ENGLISH_THING}"
)
_CHINESE_THING = rf"({'|'.join(COLOURS)})?的?({'|'.join(SHAPES)})"
_CHINESE = re.compile(rf"([一两三四五六])个{_CHINESE_THING}")
_CHINESE_SIDE = re.compile(rf"{_CHINESE_THING}在(?:一个)?{_CHINESE_THING}的([左右上下])[边侧面方]")
_QUOTED = re.compile(r"[\"“](\w+)[\"”](?: in (?!front)(\w+))?")
_GROUND = re.compile("|".join(sorted((*GROUNDS, *GROUNDS.values()), key=len, reverse=True)))

Thing = tuple[str | None, str]


class Reading:
    """What a text says: things with their counts, relations, written words with colours, backgrounds."""

    def __init__(self, text: str) -> None:
        text = text[0].lower() + text[1:]
        self.words = [(word, colour or None) for word, colour in _QUOTED.findall(text)]
        for name, colour in COLOURS.items():
            for word in re.findall(rf"{name}的?(?:单词|数字|文字)“(\w+)”", text):
                self.words = [(w, colour if w == word else c) for w, c in self.words]
        text = _QUOTED.sub("", text)
        self.grounds = [GROUNDS.get(name, name) for name in _GROUND.findall(text)]
        self.pattern = next((kind for word, kind in PATTERNS.items() if word in text), "Plain")
        text = _GROUND.sub("", text)
        self.things: list[tuple[int, Thing]] = []
        for number, colour, shape in (*_ENGLISH.findall(text), *_CHINESE.findall(text)):
            self.things.append((NUMBERS[number], _thing(colour, shape)))
        self.sides: list[tuple[Thing, str, Thing]] = []
        for c1, s1, side, c2, s2 in _ENGLISH_SIDE.findall(text):
            self.sides.append((_thing(c1, s1), SIDES[side], _thing(c2, s2)))
        for c1, s1, c2, s2, side in _CHINESE_SIDE.findall(text):
            self.sides.append((_thing(c1, s1), SIDES[side], _thing(c2, s2)))
        if not self.things:  # "圆形在正方形的左边" has no numbers
            self.things = [(1, thing) for a, _, b in self.sides for thing in (a, b)]

    def wrong(self, scene: Scene) -> str:
        """What is not true of a scene or missing; empty if all is right."""
        said: dict[Thing, int] = {}
        for number, thing in self.things:
            said[thing] = said.get(thing, 0) + number
        for (colour, shape), number in said.items():
            there = sum(fits(item, (colour, shape)) for item in scene.items)
            if there != number:
                return f"{number} {colour} {shape}, there are {there}"
        if sum(said.values()) != len(scene.items):
            return f"{sum(said.values())} things of {len(scene.items)}"
        for first, side, second in self.sides:
            pairs = [(a, b) for a in scene.items for b in scene.items if fits(a, first) and fits(b, second)]
            if len(pairs) != 1 or side not in sides_of(*pairs[0], scene):
                return f"{first} {side} {second}"
        if sorted(word for word, _ in self.words) != sorted(text.content for text in scene.texts):
            return f"words {self.words}"
        for word, colour in self.words:
            if colour and (word, colour) not in [(text.content, text.colour) for text in scene.texts]:
                return f"{word} in {colour}"
        ground = scene.background
        if self.grounds:
            colours = [ground.colour, *([ground.second] if hasattr(ground, "second") else [])]
            if self.grounds != colours or self.pattern != type(ground).__name__:
                return f"background {self.pattern} {self.grounds}"
        return ""


def _thing(colour: str, shape: str) -> Thing:
    return COLOURS.get(colour, colour) or None, SHAPES.get(shape, shape)


def fits(item: Item, thing: Thing) -> bool:
    return item.shape == thing[1] and thing[0] in (None, item.colour)


def sides_of(a: Item, b: Item, scene: Scene) -> set[str]:
    """On which sides of ``b`` is ``a``: within 60 degrees of the direction and an eighth of the picture away."""
    right, down = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    found = set()
    for side, (x, y) in {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}.items():
        along, across = right * x + down * y, abs(right * y) + abs(down * x)
        if along >= min(scene.height, scene.width) / 8 and math.atan2(across, along) <= math.pi / 3 + 1e-9:
            found.add(side)
    return found
