"""Chinese (simplified)."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.relations import Place, Relation
from mammoth_jax.data.synthetic.scene import Background, Checks, Gradient, Noise, Plain, Stripes
from mammoth_jax.data.synthetic.vocabulary import BackgroundColour, Colour, Shape

NUMBERS = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
SHAPE_NAMES: dict[Shape, str] = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "diamond": "菱形",
    "cross": "十字",
    "star": "星星",
    "heart": "爱心",
    "ring": "圆环",
    "crescent": "月牙",
    "arrow": "箭头",
}
COLOUR_NAMES: dict[Colour | BackgroundColour, str] = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "black": "黑色",
    "white": "白色",
    "gray": "灰色",
    "silver": "银色",
    "charcoal": "炭灰色",
    "mint": "薄荷色",
    "sky": "天蓝色",
    "lavender": "淡紫色",
    "beige": "米色",
    "teal": "蓝绿色",
    "navy": "藏青色",
}
_SIDES: dict[Relation, tuple[str, str]] = {
    "left of": ("左边", "左侧"),
    "right of": ("右边", "右侧"),
    "above": ("上面", "上方"),
    "below": ("下面", "下方"),
}
_PLACES: dict[Place, str] = {
    "top left": "左上角",
    "top right": "右上角",
    "bottom left": "左下角",
    "bottom right": "右下角",
}


@dataclasses.dataclass(frozen=True)
class Chinese:
    """A speaker of Chinese.

    ``formal``: with a full stop; ``wording``: which of two words for the same relation; ``particle``: what stands
    between a colour and a thing; ``text_word``: what a text in a picture is called, or None for 单词 or 数字.
    """

    formal: bool = False
    wording: int = 0
    particle: Literal["的", ""] = "的"
    text_word: str | None = None
    language: Literal["zh"] = "zh"

    @classmethod
    def drawn(cls, draws: Draws) -> "Chinese":
        """A speaker by chance."""
        particle = "的" if draws.chance(0.7) else ""
        return cls(draws.chance(0.3), draws.below(2), particle, "文字" if draws.chance(0.25) else None)

    def one(self, shape: Shape, colour: Colour | None = None) -> str:
        return (COLOUR_NAMES[colour] + self.particle if colour else "") + SHAPE_NAMES[shape]

    def some(self, count: int, shape: Shape, colour: Colour | None = None) -> str:
        return self.counting(count) + self.one(shape, colour)

    def named(self, shape: Shape) -> str:
        return self.one(shape)

    def the(self, shape: Shape, colour: Colour | None = None) -> str:
        return self.one(shape, colour)

    def many(self, shape: Shape, colour: Colour | None = None) -> str:
        return self.one(shape, colour)

    def number(self, value: int) -> str:
        return NUMBERS[value]

    def counting(self, value: int) -> str:
        return ("两" if value == 2 else NUMBERS[value]) + "个"

    def colour(self, colour: Colour | BackgroundColour) -> str:
        return COLOUR_NAMES[colour]

    def ground(self, background: Background) -> str:
        first = COLOUR_NAMES[background.colour]
        match background:
            case Plain():
                return first
            case Gradient(second=second):
                return f"从{first}到{COLOUR_NAMES[second]}的渐变"
            case Stripes(second=second):
                return f"{first}和{COLOUR_NAMES[second]}的条纹"
            case Checks(second=second):
                return f"{first}和{COLOUR_NAMES[second]}的格子"
            case Noise(second=second):
                return f"{first}和{COLOUR_NAMES[second]}的云纹"

    def written(self, content: str, colour: Colour | None = None) -> str:
        kind = self.text_word or ("数字" if content.isdigit() else "单词")
        return (COLOUR_NAMES[colour] + self.particle if colour else "") + kind + self.quoted(content)

    def quoted(self, content: str) -> str:
        return f"“{content}”"

    def related(self, first: str, relation: Relation, second: str) -> str:
        return f"{first}在{self.beside(relation, second)}"

    def beside(self, relation: Relation, other: str) -> str:
        return f"{other}的{_SIDES[relation][self.wording]}"

    def relation(self, relation: Relation) -> str:
        return _SIDES[relation][0]

    def place(self, place: Place) -> str:
        return _PLACES[place]

    def joined(self, parts: Sequence[str]) -> str:
        *most, last = parts
        return f"{'、'.join(most)}和{last}" if most else last

    def sentence(self, text: str) -> str:
        return text + "。" if self.formal and text[-1] not in "。？！" else text
