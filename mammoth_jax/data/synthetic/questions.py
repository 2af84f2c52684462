"""Questions about a picture, and their answers.

Scenes are made for a question, with the answer drawn first and each as likely, so that the question alone says little
of the answer.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

from mammoth_jax.data.synthetic.background import legible_colours
from mammoth_jax.data.synthetic.captions import DESCRIPTIONS, caption
from mammoth_jax.data.synthetic.composition import longest_text, scale_of
from mammoth_jax.data.synthetic.drawings import colour_of_train, plan_for, same_shape
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import unique_by
from mammoth_jax.data.synthetic.instructions import referred
from mammoth_jax.data.synthetic.labels import items_of_cells, letters_of_cells
from mammoth_jax.data.synthetic.language import Language, Speaker, speaker
from mammoth_jax.data.synthetic.planned import Core, Plan, compose
from mammoth_jax.data.synthetic.relations import RELATIONS, Relation, place_of, relations
from mammoth_jax.data.synthetic.sampling import sample_scene
from mammoth_jax.data.synthetic.scene import Plain, Scene
from mammoth_jax.data.synthetic.split import (
    HELD_OUT,
    MOST_ITEMS,
    Combination,
    ShapeColour,
    ShapeCount,
    ShapeRelation,
    Split,
    is_held_out,
)
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, SHAPES, Colour, Shape
from mammoth_jax.data.synthetic.words import draw_word

Kind = Literal[
    "count",
    "total",
    "colour",
    "background colour",
    "text colour",
    "side",
    "beside",
    "corner",
    "reading",
    "description",
    "cells",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_WEIGHTS = (0.2, 0.04, 0.14, 0.04, 0.04, 0.12, 0.06, 0.06, 0.2, 0.1, 0.0)
"""How often a kind is asked first, in the order of ``KINDS``; cells are told only where they are asked for."""
TOLD: frozenset[Kind] = frozenset(("description", "cells"))
"""The kinds whose answers tell all of the picture, to learn from; the others have one short answer."""

PATTERNS: dict[Language, dict[Kind, tuple[str, ...]]] = {
    "en": {
        "count": (
            "how many {things} are there?",
            "how many {things} are in the picture?",
            "how many {things} do you see?",
            "count the {things}",
        ),
        "total": ("how many shapes are there?", "how many shapes are in the picture?", "count the shapes"),
        "colour": ("what color is {a}?", "which color does {a} have?", "what is the color of {a}?"),
        "background colour": ("what color is the background?", "what is the color of the background?"),
        "text colour": ("what color is the text?", "in what color is it written?"),
        "side": (
            "where is {a} relative to {b}?",
            "on which side of {b} is {a}?",
            "seen from {b}, where is {a}?",
        ),
        "beside": ("what is {beside}?", "which shape is {beside}?"),
        "corner": ("where in the picture is {a}?", "in which corner is {a}?", "which corner is {a} in?"),
        "reading": (
            "what does it say?",
            "what is written in the picture?",
            "read the text",
            "what does the text say?",
            "which letters do you see?",
        ),
        "description": ("describe the picture", "what is in the picture?", "what do you see?"),
        "cells": ("what is where in the picture?", "what is where?"),
    },
    "zh": {
        "count": (
            "有几个{things}？",
            "图中有几个{things}？",
            "图片里有多少个{things}？",
            "数一数{things}有几个？",
        ),
        "total": ("一共有几个图形？", "图片里有多少个图形？", "图中有几个图形？"),
        "colour": ("{a}是什么颜色？", "{a}的颜色是什么？", "图中的{a}是什么颜色？"),
        "background colour": ("背景是什么颜色？", "背景的颜色是什么？"),
        "text colour": ("文字是什么颜色？", "文字的颜色是什么？"),
        "side": ("{a}在{b}的哪一边？", "{a}在{b}的什么位置？"),
        "beside": ("{beside}是什么？", "{beside}是什么图形？"),
        "corner": ("{a}在图片的什么位置？", "{a}在哪个角？"),
        "reading": ("图中写了什么？", "上面写着什么？", "图片里的文字是什么？", "读出文字"),
        "description": ("描述这张图片", "图片里有什么？", "你看到了什么？"),
        "cells": ("图片里哪里有什么？", "哪里有什么？"),
    },
}
NONE: dict[Language, str] = {"en": "none", "zh": "没有"}
CELLS = 4
"""Rows and columns of cells that are told."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a scene and its answer; ``asks`` says what is asked without the words."""

    kind: Kind
    asks: str
    text: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Interview:
    """A picture and questions about it."""

    scene: Scene
    language: Language
    questions: tuple[Question, ...]


def interview(
    split: Split, kind: Kind, height: int, width: int, draws: Draws, language: Language
) -> Interview:
    """A scene made for a question of a kind; in train up to four more questions about it.

    In heldout the scene always shows something held out: what is asked for, or beside it.
    """
    by = speaker(language, draws)
    for _ in range(_SCENES):
        scene, first = _made_for(kind, split, height, width, by, draws)
        if first is not None:
            break
    else:
        return interview(split, "reading", height, width, draws, language)
    questions = [first]
    if split == "train" and kind not in TOLD:
        for _ in range(draws.below(5)):
            more = _follow_up(scene, questions, by, draws)
            questions += [] if more is None else [more]
    return Interview(scene, language, tuple(questions))


_SCENES = 12


def _question(kind: Kind, asks: str, by: Speaker, draws: Draws, answer: str, **parts: str) -> Question:
    text = draws.choice(PATTERNS[by.language][kind]).format(**parts)
    text = by.sentence(text) if by.language == "en" or text[-1] not in "？" else text
    return Question(kind, asks, text, answer)


# Scenes that are made for a question.


def _made_for(
    kind: Kind, split: Split, height: int, width: int, by: Speaker, draws: Draws
) -> tuple[Scene, Question | None]:
    def composed(plan: Plan) -> Scene:
        return compose(plan, height, width, draws)

    match kind:
        case "count":
            shape, plan = _count_plan(split, draws)
            scene = composed(plan)
            return scene, _count(scene, shape, by, draws)
        case "total":
            core = plan_for(split, "colors", height, width, draws).core
            scene = composed(Plan(core=core, others=draws.below(MOST_ITEMS)))
            return scene, _question("total", "total", by, draws, by.counting(len(scene.items)))
        case "colour":
            plan, shape = _colour_plan(split, draws)
            scene = composed(plan)
            number = [item.shape for item in scene.items].index(shape)
            return scene, _colour(scene, number, by, draws)
        case "background colour":
            core = plan_for(split, "colors", height, width, draws).core
            ground = draws.choice(BACKGROUND_COLOURS)
            scene = composed(Plan(core=core, others=draws.below(4), background=Plain(ground)))
            return scene, _question("background colour", "background", by, draws, by.colour(ground))
        case "text colour":
            colour = draws.choice(COLOURS)
            grounds = [Plain(g) for g in BACKGROUND_COLOURS if colour in legible_colours(Plain(g))]
            plan = _word_plan(split, height, width, draws)
            scene = composed(dataclasses.replace(plan, text_colour=colour, background=draws.choice(grounds)))
            return scene, _question("text colour", "text colour", by, draws, by.colour(colour))
        case "side" | "beside":
            plan = _pair_plan(split, draws)
            others = draws.below(3) if kind == "side" else 0
            scene = composed(dataclasses.replace(plan, others=others))
            ask = _side if kind == "side" else _beside
            return scene, ask(scene, 0, 1, by, draws)
        case "corner":
            core = plan_for(split, "colors", height, width, draws).core
            scene = composed(Plan(core=core, others=draws.below(4)))
            return scene, _corner(scene, 0, by, draws)
        case "reading":
            scene = composed(_word_plan(split, height, width, draws))
            return scene, _reading(scene, by, draws)
        case "description":
            scene = sample_scene(split, height, width, draws)
            style = "full" if draws.chance(0.5) else "colours"
            told = caption(scene, draws, by.language, style, wrappings=DESCRIPTIONS)
            return scene, _question("description", "description", by, draws, told.text)
        case "cells":
            scene = sample_scene(split, height, width, draws)
            return scene, _question("cells", "cells", by, draws, _told_cells(scene, by))
    raise ValueError(f"{kind!r}: expected one of {KINDS}")


def _count_plan(split: Split, draws: Draws) -> tuple[Shape, Plan]:
    """So many of a shape, none included, each number that the split allows as likely."""
    shape = draws.choice(SHAPES)
    counts: list[int] = [
        n for n in range(MOST_ITEMS + 1) if split == "heldout" or ShapeCount(shape, n) not in HELD_OUT
    ]
    count = draws.choice(counts)
    others = draws.between(0 if count else 1, min(3, MOST_ITEMS - count))
    counted = ShapeCount(shape, count)
    if counted in HELD_OUT:
        return shape, Plan(same_shape(counted, draws), others=others, allowed=frozenset((counted,)))
    if split == "train":
        return shape, Plan(same_shape(counted, draws), others=others, absent=(shape,))
    if count:
        return shape, Plan((_held_out_colour(shape, draws),) * count, others=others)
    rest: list[Shape] = [other for other in SHAPES if other != shape]
    return shape, Plan((_held_out_colour(draws.choice(rest), draws),), others=others, absent=(shape,))


def _held_out_colour(shape: Shape, draws: Draws) -> Core:
    colours: list[Colour] = [colour for colour in COLOURS if ShapeColour(shape, colour) in HELD_OUT]
    return shape, draws.choice(colours)


def _colour_plan(split: Split, draws: Draws) -> tuple[Plan, Shape]:
    """A shape alone of its kind, each colour that the split allows as likely."""
    shape = draws.choice(SHAPES)
    others = draws.below(4)
    if split == "train":
        return Plan((colour_of_train(shape, draws),), others=others), shape
    colour = draws.choice(COLOURS)
    if ShapeColour(shape, colour) in HELD_OUT:
        return Plan(((shape, colour),), others=others), shape
    rest: list[Shape] = [other for other in SHAPES if other != shape]
    core: list[Core] = [(shape, colour), _held_out_colour(draws.choice(rest), draws)]
    return Plan(tuple(draws.shuffled(core)), others=others), shape


def _pair_plan(split: Split, draws: Draws) -> Plan:
    """Two shapes, each relation that the split allows as likely."""
    shapes: list[Shape] = draws.shuffled(SHAPES)
    first, second = shapes[:2]
    possible: list[tuple[Relation, frozenset[Combination]]] = []
    for relation in RELATIONS:
        pair = ShapeRelation(first, relation, second)
        if relation in ("right of", "below"):
            pair = ShapeRelation(second, "left of" if relation == "right of" else "above", first)
        if split == "heldout" or not is_held_out(pair):
            possible.append((relation, frozenset((pair,)) & HELD_OUT))
    relation, allowed = draws.choice(possible)
    # In heldout the first is always of a held-out colour, so that its colour does not tell which relation it is.
    a = colour_of_train(first, draws) if split == "train" else _held_out_colour(first, draws)
    return Plan((a, colour_of_train(second, draws)), relation, allowed=allowed)


def _word_plan(split: Split, height: int, width: int, draws: Draws) -> Plan:
    word = draw_word(draws, split, longest_text(width, scale_of(height, width)))
    items = plan_for("train", "two_object", height, width, draws).core
    return Plan(core=items[: draws.below(3)], text=word, others=draws.below(3))


# What can be asked of a scene.


def _count(scene: Scene, shape: Shape, by: Speaker, draws: Draws) -> Question:
    count = sum(item.shape == shape for item in scene.items)
    answer = by.counting(count) if count else NONE[by.language]
    return _question("count", f"count {shape}", by, draws, answer, things=by.many(shape))


def _colour(scene: Scene, number: int, by: Speaker, draws: Draws) -> Question | None:
    item = scene.items[number]
    if unique_by(scene, number) != "shape":
        return None
    answer = by.colour(item.colour)
    return _question("colour", f"colour {item.shape}", by, draws, answer, a=by.the(item.shape))


def _side(scene: Scene, a: int, b: int, by: Speaker, draws: Draws) -> Question | None:
    first, second = scene.items[a], scene.items[b]
    holding = relations(first, second, scene.height, scene.width)
    if len(holding) != 1 or None in (unique_by(scene, a), unique_by(scene, b)):
        return None
    names = {"a": referred(scene, a, by, draws), "b": referred(scene, b, by, draws)}
    asks = f"side {first.shape} {second.shape}"
    return _question("side", asks, by, draws, by.relation(holding[0]), **names)


def _beside(scene: Scene, a: int, b: int, by: Speaker, draws: Draws) -> Question | None:
    first, second = scene.items[a], scene.items[b]
    holding = relations(first, second, scene.height, scene.width)
    if len(holding) != 1 or len(scene.items) != 2:
        return None
    beside = by.beside(holding[0], by.the(second.shape))
    asks = f"beside {holding[0]} {second.shape}"
    return _question("beside", asks, by, draws, by.named(first.shape), beside=beside)


def _corner(scene: Scene, number: int, by: Speaker, draws: Draws) -> Question | None:
    place = place_of(scene.items[number].centre, scene.height, scene.width)
    if place is None or unique_by(scene, number) is None:
        return None
    name = referred(scene, number, by, draws)
    asks = f"corner {scene.items[number].shape}"
    return _question("corner", asks, by, draws, by.place(place), a=name)


def _told_cells(scene: Scene, by: Speaker) -> str:
    """The letters in each cell, or else the item that fills most of it, row by row."""

    def told(item: int, letters: str) -> str:
        if letters or not item:
            return letters or NONE[by.language]
        return by.one(scene.items[item - 1].shape, scene.items[item - 1].colour)

    rows = zip(items_of_cells(scene, CELLS).tolist(), letters_of_cells(scene, CELLS), strict=True)
    return "; ".join(", ".join(map(told, *row)) for row in rows)


def _reading(scene: Scene, by: Speaker, draws: Draws) -> Question | None:
    if len(scene.texts) != 1:
        return None
    return _question("reading", "reading", by, draws, scene.texts[0].content)


def _follow_up(scene: Scene, known: list[Question], by: Speaker, draws: Draws) -> Question | None:
    """Another question, of those whose answers are evenly spread in any scene of train."""
    number = draws.below(max(len(scene.items), 1))
    asked: list[Callable[[], Question | None]] = [lambda: _reading(scene, by, draws)]
    if scene.items:
        asked += [lambda: _colour(scene, number, by, draws), lambda: _corner(scene, number, by, draws)]
    if len(scene.items) > 1:
        other = (number + 1 + draws.below(len(scene.items) - 1)) % len(scene.items)
        asked.append(lambda: _side(scene, number, other, by, draws))
    for ask in draws.shuffled(asked):
        question = ask()
        if question is not None and question.asks not in [other.asks for other in known]:
            return question
    return None
