"""Captions: everything that a scene shows, in words, and the same as a specification.

A caption names all items and texts of its scene; a style says with which attributes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.language import Language, Speaker, speaker
from mammoth_jax.data.synthetic.prompt_spec import Category, Include, PromptSpec, Written
from mammoth_jax.data.synthetic.relations import Relation, relations
from mammoth_jax.data.synthetic.scene import Background, Item, Plain, Scene
from mammoth_jax.data.synthetic.split import HELD_OUT, ShapeCount
from mammoth_jax.data.synthetic.vocabulary import Colour, Shape

Style = Literal["names", "colours", "relation", "coloured relation", "full"]
"""What is named of the items: shapes and counts; colours, too; how two stand to each other; all of it."""

WRAPPINGS: dict[Language, tuple[str, ...]] = {
    "en": (
        "{}",
        "{}",
        "{}",
        "a picture of {}",
        "a photo of {}",
        "an image of {}",
        "a picture with {}",
        "draw {}",
        "please draw {}",
        "show me {}",
        "paint {}",
        "create an image of {}",
    ),
    "zh": (
        "{}",
        "{}",
        "{}",
        "画{}",
        "请画{}",
        "图片里有{}",
        "画面中有{}",
        "一张图片，里面有{}",
        "生成一张图片，里面有{}",
    ),
}
DESCRIPTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("{}", "a picture of {}", "the picture shows {}"),
    "zh": ("{}", "图片里有{}", "画面中有{}"),
}
"""Ways to begin that do not ask for anything."""

RELATION_WRAPPINGS: dict[Language, tuple[str, ...]] = {
    "en": WRAPPINGS["en"],
    "zh": ("{}", "{}", "{}", "画面中{}", "图片里{}", "请画：{}", "生成一张图片：{}"),
}
PLAIN_GROUNDS: dict[Language, tuple[str, ...]] = {
    "en": ("{} on a {} background", "{}, {} background"),
    "zh": ("{}，背景是{}", "{}，{}背景"),
}
GROUNDS: dict[Language, tuple[str, ...]] = {
    "en": ("{} on {}", "{} in front of {}", "{}, background of {}"),
    "zh": ("{}，背景是{}",),
}
AND_RELATION: dict[Language, tuple[str, ...]] = {
    "en": ("{}; {} is {}", "{}, {} is {}", "{}, where {} is {}"),
    "zh": ("{}，{}", "{}，其中{}"),
}
WITH_TEXT: dict[Language, str] = {"en": "{} and {}", "zh": "{}，还有{}"}


@dataclasses.dataclass(frozen=True)
class Caption:
    """A text in a language, and what it says."""

    text: str
    language: Language
    spec: PromptSpec


@dataclasses.dataclass(frozen=True)
class Group:
    """Items that are named together."""

    shape: Shape
    colour: Colour | None
    count: int


def groups_of(scene: Scene, coloured: bool, draws: Draws) -> list[Group]:
    """A scene's items as they are counted in words, in random order.

    Where a part of a shape's items would be a count that is held out for the whole, they are named one by one.
    """
    keys: list[tuple[Shape, Colour | None]] = [
        (item.shape, item.colour if coloured else None) for item in scene.items
    ]
    shapes: list[Shape] = [item.shape for item in scene.items]
    groups: list[Group] = []
    for shape, colour in dict.fromkeys(keys):
        count = keys.count((shape, colour))
        if count < shapes.count(shape) and ShapeCount(shape, count) in HELD_OUT:
            groups += [Group(shape, colour, 1)] * count
        else:
            groups.append(Group(shape, colour, count))
    return draws.shuffled(groups)


def caption(
    scene: Scene,
    draws: Draws,
    language: Language,
    style: Style,
    category: Category = "world",
    wrappings: Mapping[Language, tuple[str, ...]] = WRAPPINGS,
) -> Caption:
    """A caption of a scene.

    The two styles of relations take scenes of two items of two shapes that stand in one; other scenes are captioned as
    ``names`` and ``colours``.
    """
    by = speaker(language, draws)
    coloured = style in ("colours", "coloured relation", "full")
    related = _related(scene, coloured, by, draws) if style.endswith("relation") else None
    if related is None:
        include, parts = _listed(scene, coloured, by, draws)
    else:
        include, parts = related
    texts = tuple(
        Written(text.content, text.colour if coloured and draws.chance(0.5) else None) for text in scene.texts
    )
    written = [by.written(text.content, text.colour) for text in texts]
    if related:
        wrappings = RELATION_WRAPPINGS
    if related and written:
        text = draws.choice(wrappings[language]).format(_beside(by, parts[0], written))
    else:
        text = draws.choice(wrappings[language]).format(by.joined([*parts, *written]))
    background = None
    if draws.chance(1.0 if style == "full" else 0.15):
        text, background = _on_ground(text, scene.background, by, draws), scene.background
    if style == "full":
        text, include = _with_relation(text, include, scene, by, draws)
    return Caption(by.sentence(text), language, PromptSpec(category, include, texts, background))


def _listed(scene: Scene, coloured: bool, by: Speaker, draws: Draws) -> tuple[tuple[Include, ...], list[str]]:
    groups = groups_of(scene, coloured, draws)
    parts = [by.some(group.count, group.shape, group.colour) for group in groups]
    merged: dict[tuple[Shape, Colour | None], int] = {}
    for group in groups:
        key = (group.shape, group.colour)
        merged[key] = merged.get(key, 0) + group.count
    return tuple(Include(shape, count, colour) for (shape, colour), count in merged.items()), parts


def _related(
    scene: Scene, coloured: bool, by: Speaker, draws: Draws
) -> tuple[tuple[Include, ...], list[str]] | None:
    """``a circle left of a square``, where there are these two items alone."""
    if len(scene.items) != 2 or scene.items[0].shape == scene.items[1].shape:
        return None
    first, second = draws.shuffled(scene.items)
    holding = relations(first, second, scene.height, scene.width)
    if not holding:
        return None
    relation = draws.choice(holding)
    colours = (first.colour, second.colour) if coloured else (None, None)
    include = (
        Include(second.shape, 1, colours[1]),
        Include(first.shape, 1, colours[0], (relation, 0)),
    )
    if by.language == "zh" and draws.chance(0.3):
        names = by.the(first.shape, colours[0]), by.the(second.shape, colours[1])
    else:
        names = by.some(1, first.shape, colours[0]), by.some(1, second.shape, colours[1])
    return include, [by.related(names[0], relation, names[1])]


def _beside(by: Speaker, related: str, written: list[str]) -> str:
    return WITH_TEXT[by.language].format(related, by.joined(written))


def _on_ground(text: str, background: Background, by: Speaker, draws: Draws) -> str:
    patterns = PLAIN_GROUNDS if isinstance(background, Plain) else GROUNDS
    return draws.choice(patterns[by.language]).format(text, by.ground(background))


def _with_relation(
    text: str, include: tuple[Include, ...], scene: Scene, by: Speaker, draws: Draws
) -> tuple[str, tuple[Include, ...]]:
    """A sentence about two items that are alone of their shapes and colours, if there are such."""
    named = [(part.shape, part.colour) for part in include if part.count == 1]
    items = [item for item in scene.items if (item.shape, item.colour) in named]
    pairs: list[tuple[Item, Item, Relation]] = [
        (a, b, relation)
        for a in items
        for b in items
        if a.shape != b.shape
        for relation in relations(a, b, scene.height, scene.width)
    ]
    if not pairs:
        return text, include
    first, second, relation = draws.choice(pairs)
    target = [(part.shape, part.colour) for part in include].index((second.shape, second.colour))
    include = tuple(
        dataclasses.replace(part, position=(relation, target))
        if (part.shape, part.colour) == (first.shape, first.colour)
        else part
        for part in include
    )
    a, b = by.the(first.shape, first.colour), by.the(second.shape, second.colour)
    pattern = draws.choice(AND_RELATION[by.language])
    if by.language == "zh":
        return pattern.format(text, by.related(a, relation, b)), include
    return pattern.format(text, a, by.beside(relation, b)), include
