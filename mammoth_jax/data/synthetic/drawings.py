"""Text to image: a scene of one of GenEval's categories, or of any kind, and its caption.

In ``train`` nothing held out is shown or said.  In ``heldout`` each category is drawn uniformly from its held-out
combinations, and the caption names the combination:

=====================================  ============================================
category                               held-out combination
=====================================  ============================================
single_object, colors                  shape and colour of the item
two_object, color_attr                 shape and colour of one of the two items
counting                               shape and count
position                               two shapes and their relation
text                                   the word
world                                  any, as :func:`sampling.sample_scene` does it
=====================================  ============================================

As in GenEval, the specification asks only for the shapes of ``single_object`` and ``two_object``, and for shapes with
their counts or relation for ``counting`` and ``position``; the caption may say more.
"""

import dataclasses
from typing import get_args

from mammoth_jax.data.synthetic.captions import Caption, Style, caption
from mammoth_jax.data.synthetic.composition import TRAIN_COLOURS, longest_text, scale_of
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.language import Language
from mammoth_jax.data.synthetic.planned import Core, Look, Plan, compose
from mammoth_jax.data.synthetic.prompt_spec import Category
from mammoth_jax.data.synthetic.sampling import sample_scene
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import (
    HELD_OUT,
    SHAPE_COLOURS,
    SHAPE_COUNTS,
    SHAPE_RELATIONS,
    ShapeColour,
    ShapeCount,
    ShapeRelation,
    Split,
    is_held_out,
)
from mammoth_jax.data.synthetic.vocabulary import SHAPES, Colour, Shape
from mammoth_jax.data.synthetic.words import draw_word

CATEGORIES: tuple[Category, ...] = get_args(Category)
CATEGORY_WEIGHTS = (0.06, 0.08, 0.2, 0.1, 0.14, 0.12, 0.15, 0.15)
"""How often a category is drawn for training, in the order of ``CATEGORIES``."""

_STYLES: dict[Category, tuple[Style, Style]] = {  # of train, each half the time; the second alone in heldout
    "single_object": ("names", "colours"),
    "two_object": ("names", "colours"),
    "counting": ("colours", "names"),
    "colors": ("colours", "colours"),
    "position": ("coloured relation", "relation"),
    "color_attr": ("colours", "colours"),
    "text": ("names", "colours"),
    "world": ("colours", "full"),
}
_COLOURLESS: tuple[Category, ...] = ("single_object", "two_object", "counting", "position")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture to draw and the words that ask for it."""

    scene: Scene
    caption: Caption


def draw_shape_colour(split: Split, draws: Draws) -> ShapeColour:
    """A shape and a colour of a split, each as likely."""
    return draws.choice([c for c in SHAPE_COLOURS if is_held_out(c) == (split == "heldout")])


def draw_shape_count(split: Split, draws: Draws) -> ShapeCount:
    """A shape and a count above one of a split, each as likely."""
    return draws.choice([c for c in SHAPE_COUNTS if c.count > 1 and is_held_out(c) == (split == "heldout")])


def draw_relation(split: Split, draws: Draws) -> ShapeRelation:
    """Two shapes and a relation of a split, each as likely."""
    return draws.choice([c for c in SHAPE_RELATIONS if is_held_out(c) == (split == "heldout")])


def drawing(
    split: Split,
    category: Category,
    height: int,
    width: int,
    draws: Draws,
    language: Language,
    look: Look = Look(),
) -> Drawing:
    """A scene of a category and its caption in a language; ``world`` has its own look."""
    if category == "world":
        scene = sample_scene(split, height, width, draws)
    else:
        plan = dataclasses.replace(plan_for(split, category, height, width, draws), look=look)
        scene = compose(plan, height, width, draws)
    either = 1 if split == "heldout" else draws.below(2)
    said = caption(scene, draws, language, _STYLES[category][either], category)
    if category in _COLOURLESS:
        said = dataclasses.replace(said, spec=said.spec.without_colours())
    return Drawing(scene, said)


def plan_for(split: Split, category: Category, height: int, width: int, draws: Draws) -> Plan:
    """What a scene of a category shows."""
    match category:
        case "single_object" | "colors":
            only = draw_shape_colour(split, draws)
            return Plan(core=((only.shape, only.colour),))
        case "two_object" | "color_attr":
            first = draw_shape_colour(split, draws)
            others: list[Shape] = [shape for shape in SHAPES if shape != first.shape]
            second = draws.choice(others)
            colours: list[Colour] = [colour for colour in TRAIN_COLOURS[second] if colour != first.colour]
            core: list[Core] = [(first.shape, first.colour), (second, draws.choice(colours))]
            return Plan(core=tuple(draws.shuffled(core)))
        case "counting":
            counted = draw_shape_count(split, draws)
            allowed = frozenset((counted,)) & HELD_OUT
            return Plan(core=same_shape(counted, draws), allowed=allowed)
        case "position":
            pair = draw_relation(split, draws)
            core = [colour_of_train(shape, draws) for shape in (pair.first, pair.second)]
            return Plan(core=tuple(core), relation=pair.relation, allowed=frozenset((pair,)) & HELD_OUT)
        case "text":
            word = draw_word(draws, split, longest_text(width, scale_of(height, width)))
            items = plan_for("train", "two_object", height, width, draws).core
            return Plan(core=items[: draws.weighted((0.4, 0.35, 0.25))], text=word)
    raise ValueError(f"{category!r} has no plan")


def colour_of_train(shape: Shape, draws: Draws) -> Core:
    """The shape in a colour that is not held out."""
    return shape, draws.choice(TRAIN_COLOURS[shape])


def same_shape(counted: ShapeCount, draws: Draws) -> tuple[Core, ...]:
    """Items of one shape in colours that are not held out, more often than not in one colour."""
    if draws.chance(0.6):
        return (colour_of_train(counted.shape, draws),) * counted.count
    return tuple(colour_of_train(counted.shape, draws) for _ in range(counted.count))
