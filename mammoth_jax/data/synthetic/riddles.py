"""What riddles are made of: sums, things that come in a number, things that have a colour, shapes described."""

from mammoth_jax.data.synthetic.relations import Relation
from mammoth_jax.data.synthetic.vocabulary import Colour, Shape

NUMBER_OF: dict[int, tuple[tuple[str, str], ...]] = {
    1: (("a face has noses", "一张脸上的鼻子"),),
    2: (("a cat has eyes", "一只猫的眼睛"), ("a bird has wings", "一只鸟的翅膀")),
    3: (("a triangle has corners", "三角形的角"), ("a traffic light has colors", "红绿灯的颜色")),
    4: (
        ("a dog has legs", "一只狗的腿"),
        ("a square has sides", "正方形的边"),
        ("a car has wheels", "汽车的轮子"),
    ),
    5: (("a hand has fingers", "一只手的手指"),),
    6: (("an ant has legs", "一只蚂蚁的腿"), ("a die has faces", "骰子的面")),
}
"""Things of which there are so many, as ``as many circles as ...`` goes on; English and Chinese."""

COLOUR_OF: dict[Colour, tuple[tuple[str, str], ...]] = {
    "red": (("a tomato", "番茄"), ("a fire truck", "消防车")),
    "orange": (("a carrot", "胡萝卜"), ("a pumpkin", "南瓜")),
    "yellow": (("a banana", "香蕉"), ("a lemon", "柠檬")),
    "green": (("grass", "草地"), ("a frog", "青蛙")),
    "blue": (("the sea", "大海"), ("a blueberry", "蓝莓")),
    "purple": (("a grape", "葡萄"), ("an eggplant", "茄子")),
    "pink": (("a flamingo", "火烈鸟"), ("a pig", "小猪")),
    "brown": (("chocolate", "巧克力"), ("coffee", "咖啡")),
    "black": (("coal", "煤炭"), ("the night", "黑夜")),
    "white": (("snow", "雪"), ("milk", "牛奶")),
}
"""Things of a colour."""

MIXED: dict[Colour, tuple[Colour, Colour]] = {
    "orange": ("red", "yellow"),
    "green": ("blue", "yellow"),
    "purple": ("red", "blue"),
    "pink": ("red", "white"),
}
"""Two paints that make a colour."""

SHAPE_OF: dict[Shape, tuple[str, str]] = {
    "circle": ("shape of the full moon", "满月的形状"),
    "square": ("shape with four equal sides and four right angles", "四条边一样长、有四个直角的图形"),
    "triangle": ("shape with three corners", "有三个角的图形"),
    "diamond": ("square that stands on a corner", "立在一个角上的正方形"),
    "cross": ("shape of a plus sign", "加号的形状"),
    "star": ("shape with five points", "有五个尖的图形"),
    "heart": ("shape of love", "代表爱的形状"),
    "ring": ("round shape with a hole", "中间有洞的圆"),
    "crescent": ("shape of the new moon", "弯弯的月亮的形状"),
    "arrow": ("sign that points up", "指向上面的标志"),
}
"""Shapes described; in English after ``the``."""

OPPOSITE_WORDS: dict[Relation, tuple[str, str]] = {
    "left of": ("left", "左"),
    "right of": ("right", "右"),
    "above": ("above", "上"),
    "below": ("below", "下"),
}
"""Sides as they stand in ``the opposite of right is left``."""
