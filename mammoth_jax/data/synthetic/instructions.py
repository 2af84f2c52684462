"""What is said to ask for an edit."""

from typing import Literal

from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import Beside, Corner, Edit, Toward, Where, unique_by
from mammoth_jax.data.synthetic.language import Language, Speaker
from mammoth_jax.data.synthetic.relations import Relation
from mammoth_jax.data.synthetic.scene import Background, Item, Plain, Scene, Text

Said = Literal[
    "recolour",
    "remove",
    "add",
    "add somewhere",
    "replace",
    "move",
    "move toward",
    "background",
    "plain background",
    "text",
    "named text",
    "text colour",
    "named text colour",
]
"""An operation, or one of its cases that is said in another way."""

PATTERNS: dict[Language, dict[Said, tuple[str, ...]]] = {
    "en": {
        "recolour": (
            "make {old} {colour}",
            "change {old} to {colour}",
            "paint {old} {colour}",
            "turn {old} {colour}",
            "change the color of {old} to {colour}",
            "{old} should be {colour}",
        ),
        "remove": (
            "remove {old}",
            "delete {old}",
            "erase {old}",
            "take {old} away",
            "get rid of {old}",
        ),
        "add": ("add {new} {where}", "put {new} {where}", "draw {new} {where}", "place {new} {where}"),
        "add somewhere": ("add {new}", "add {new} to the picture", "draw {new} as well", "put in {new}"),
        "replace": (
            "replace {old} with {new}",
            "turn {old} into {new}",
            "change {old} into {new}",
            "swap {old} for {new}",
        ),
        "move": ("move {old} {where}", "put {old} {at}", "place {old} {at}"),
        "move toward": ("move {old} {where}", "push {old} {where}", "shift {old} {where}"),
        "background": (
            "change the background to {ground}",
            "replace the background with {ground}",
            "make the background {ground}",
        ),
        "plain background": (
            "change the background to {ground}",
            "make the background {ground}",
            "use a {ground} background",
            "paint the background {ground}",
        ),
        "text": (
            "change the word to {new}",
            "change the text to {new}",
            "write {new} instead",
            "let it say {new}",
        ),
        "named text": (
            "change {old} to {new}",
            "replace {old} with {new}",
            "write {new} instead of {old}",
        ),
        "text colour": ("make the text {colour}", "change the color of the word to {colour}"),
        "named text colour": ("make {old} {colour}", "change the color of {old} to {colour}"),
    },
    "zh": {
        "recolour": (
            "把{old}变成{colour}",
            "把{old}改成{colour}",
            "将{old}涂成{colour}",
            "把{old}的颜色改为{colour}",
            "让{old}变成{colour}",
        ),
        "remove": ("去掉{old}", "删除{old}", "移除{old}", "擦掉{old}", "把{old}去掉"),
        "add": ("在{where}加{new}", "在{where}画{new}", "在{where}添加{new}", "在{where}放{new}"),
        "add somewhere": ("加{new}", "添加{new}", "再画{new}", "在图中加{new}"),
        "replace": ("把{old}换成{new}", "将{old}替换为{new}", "用{new}代替{old}", "把{old}变成{new}"),
        "move": ("把{old}移到{where}", "将{old}移动到{where}", "把{old}放到{where}"),
        "move toward": ("把{old}{where}移", "将{old}{where}移动"),
        "background": ("把背景换成{ground}", "将背景改为{ground}", "背景改成{ground}"),
        "plain background": (
            "把背景换成{ground}",
            "将背景改为{ground}",
            "背景改成{ground}",
            "用{ground}背景",
        ),
        "text": ("把单词改成{new}", "把文字改成{new}", "将文字换成{new}", "改写成{new}"),
        "named text": ("把{old}改成{new}", "将{old}换成{new}", "用{new}替换{old}"),
        "text colour": ("把文字变成{colour}", "将单词的颜色改为{colour}"),
        "named text colour": ("把{old}变成{colour}", "将{old}的颜色改为{colour}"),
    },
}
TOWARD: dict[Language, dict[Relation, tuple[str, ...]]] = {
    "en": {
        "left of": ("to the left", "left"),
        "right of": ("to the right", "right"),
        "above": ("up",),
        "below": ("down",),
    },
    "zh": {"left of": ("向左",), "right of": ("向右",), "above": ("向上",), "below": ("向下",)},
}
PREPOSITIONS: tuple[Literal["to"], Literal["at"]] = ("to", "at")


def referred(scene: Scene, number: int, by: Speaker, draws: Draws) -> str:
    """An item that is known, told from all others."""
    item = scene.items[number]
    short = unique_by(scene, number) == "shape" and draws.chance(0.5)
    return by.the(item.shape, None if short else item.colour)


def instruction(edit: Edit, by: Speaker, draws: Draws) -> str:
    """The words that ask for an edit."""
    said, parts = _parts(edit, by, draws)
    return by.sentence(draws.choice(PATTERNS[by.language][said]).format(**parts))


def _parts(edit: Edit, by: Speaker, draws: Draws) -> tuple[Said, dict[str, str]]:
    old, new = edit.old, edit.new
    known = "" if edit.item is None else referred(edit.before, edit.item, by, draws)
    match edit.operation, old, new:
        case "recolour", Item(), Item():
            return "recolour", {"old": known, "colour": by.colour(new.colour)}
        case "remove", Item(), _:
            return "remove", {"old": known}
        case "add", _, Item():
            thing = by.some(1, new.shape, new.colour)
            if edit.where is None:
                return "add somewhere", {"new": thing}
            return "add", {"new": thing, "where": _whither(edit, edit.where, by, draws, "at")}
        case "replace", Item(), Item():
            same = old.colour == new.colour and draws.chance(0.5)
            thing = by.some(1, new.shape, None if same else new.colour)
            return "replace", {"old": known, "new": thing}
        case "move", Item(), Item() if edit.where is not None:
            said: Said = "move toward" if isinstance(edit.where, Toward) else "move"
            to, at = (_whither(edit, edit.where, by, draws, word) for word in PREPOSITIONS)
            return said, {"old": known, "where": to, "at": at}
        case "text", Text(), Text():
            return _text_parts(edit, old, new, by, draws)
        case "background", _, _:
            ground: Background = edit.after.background
            said = "plain background" if isinstance(ground, Plain) else "background"
            return said, {"ground": by.ground(ground)}
    raise ValueError(f"an edit that cannot be told: {edit.operation} of {old} to {new} at {edit.where}")


def _text_parts(edit: Edit, old: Text, new: Text, by: Speaker, draws: Draws) -> tuple[Said, dict[str, str]]:
    named = len(edit.before.texts) > 1 or draws.chance(0.5)
    quoted = by.written(old.content) if draws.chance(0.5) else by.quoted(old.content)
    if old.content == new.content:
        said: Said = "named text colour" if named else "text colour"
        return said, {"old": quoted, "colour": by.colour(new.colour)}
    return ("named text" if named else "text"), {"old": quoted, "new": by.quoted(new.content)}


def _whither(edit: Edit, where: Where, by: Speaker, draws: Draws, preposition: Literal["at", "to"]) -> str:
    """``to the left of the star``, ``at the top left``, ``up``; in Chinese without a preposition."""
    match where:
        case Beside(relation, other):
            before = next(old for old, new in edit.kept if new == other)
            return by.beside(relation, referred(edit.before, before, by, draws))
        case Corner(place):
            return by.place(place) if by.language == "zh" else f"{preposition} {by.place(place)}"
        case Toward(direction):
            return draws.choice(TOWARD[by.language][direction])
