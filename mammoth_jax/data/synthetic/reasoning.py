"""Reasoning, then drawing: a prompt that leaves something to work out, what is worked out, and the scene.

What is to be drawn is chosen first, by the rules of the split; then parts of it are put as riddles.
"""

import dataclasses
from typing import Literal, get_args

from mammoth_jax.data.synthetic.composition import TRAIN_COLOURS, longest_text, scale_of
from mammoth_jax.data.synthetic.drawings import (
    colour_of_train,
    draw_relation,
    draw_shape_colour,
    draw_shape_count,
)
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.language import Language, Speaker, speaker
from mammoth_jax.data.synthetic.planned import Core, Plan, compose
from mammoth_jax.data.synthetic.prompt_spec import Include, PromptSpec, Written
from mammoth_jax.data.synthetic.relations import OPPOSITE
from mammoth_jax.data.synthetic.riddles import COLOUR_OF, MIXED, NUMBER_OF, OPPOSITE_WORDS, SHAPE_OF
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import HELD_OUT, ShapeCount, ShapeRelation, Split, Word, is_held_out
from mammoth_jax.data.synthetic.vocabulary import Colour
from mammoth_jax.data.synthetic.words import draw_word

RiddleKind = Literal["amount", "thing", "arrangement", "word"]
RIDDLE_KINDS: tuple[RiddleKind, ...] = get_args(RiddleKind)

PATTERNS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "sum": (
            "as many {things} as {number}",
            "draw as many {things} as {number}",
            "{things}, {number} of them",
        ),
        "number of": ("as many {things} as {number}", "draw as many {things} as {number}"),
        "colour of": ("{}, in the color of {}", "{}, the color is that of {}"),
        "colour mixed": ("{}, in the color that {} and {} make",),
        "known colour": ("{}, in {}",),
        "item colour": ("{}; {} has the color of {}",),
        "shape of": ("the {}", "draw the {}"),
        "shape": ("{}", "draw {}"),
        "opposite": ("{} that is the opposite of {}", "draw {}, the opposite of {}"),
        "backwards": ("{} backwards", "write {} backwards", "draw {} written backwards"),
        "so": ("so: {}", "so draw {}"),
    },
    "zh": {
        "sum": ("画{things}，数量是{number}", "{things}的数量是{number}"),
        "number of": ("{things}和{number}一样多", "画{things}，数量和{number}一样多"),
        "colour of": ("{}，颜色和{}一样",),
        "colour mixed": ("{}，颜色是{}和{}混合出来的",),
        "known colour": ("{}，颜色是{}",),
        "item colour": ("{}，{}的颜色和{}一样",),
        "shape of": ("{}", "画{}"),
        "shape": ("{}", "画{}"),
        "opposite": ("{}在{}的反方向", "画{}，在{}的反方向"),
        "backwards": ("{}倒过来写", "把{}倒过来写"),
        "so": ("所以画{}", "所以是{}"),
    },
}
FACTS: dict[Language, dict[str, str]] = {
    "en": {
        "is": "{} is {}",
        "colour": "{} is {}",
        "mixed": "{} and {} make {}",
        "shape": "the {} is {}",
        "opposite": "the opposite of {} is {}",
        "backwards": "{} backwards is {}",
        "as many as": "{}: {}",
        "end": ". ",
    },
    "zh": {
        "is": "{}是{}",
        "colour": "{}是{}的",
        "mixed": "{}和{}混合是{}",
        "shape": "{}是{}",
        "opposite": "{}的反面是{}",
        "backwards": "{}倒过来是{}",
        "as many as": "{}有{}",
        "end": "。",
    },
}
SUMS: dict[Language, dict[str, str]] = {
    "en": {"plus": "{} plus {}", "minus": "{} minus {}", "times": "{} times {}"},
    "zh": {"plus": "{}加{}", "minus": "{}减{}", "times": "{}乘{}"},
}


@dataclasses.dataclass(frozen=True)
class Riddle:
    """A prompt, what is to be thought about it, the scene that is meant and what a scorer looks for in it."""

    scene: Scene
    language: Language
    prompt: str
    reasoning: str
    spec: PromptSpec


def riddle(
    split: Split, kind: RiddleKind, height: int, width: int, draws: Draws, language: Language
) -> Riddle:
    """A riddle of a kind; in heldout its solution is a held-out combination, in train it has none."""
    by = speaker(language, draws)
    telling = {"amount": _amount, "thing": _thing, "arrangement": _arrangement}
    if kind == "word":
        plan, prompt, facts, spec = _word(split, by, draws, longest_text(width, scale_of(height, width)))
    else:
        plan, prompt, facts, spec = telling[kind](split, by, draws)
    *known, conclusion = facts
    end = FACTS[language]["end"]
    so = draws.choice(PATTERNS[language]["so"]).format(conclusion)
    reasoning = "".join(fact + end for fact in known) + so + end.strip()
    return Riddle(compose(plan, height, width, draws), language, by.sentence(prompt), reasoning, spec)


_Told = tuple[Plan, str, list[str], PromptSpec]
"""The plan, the prompt, facts with the conclusion last, and what is asked for."""


def _english(by: Speaker) -> int:
    return 0 if by.language == "en" else 1


def _sum(value: int, by: Speaker, draws: Draws) -> str:
    """Two numbers up to nine that make a number from one to six, in words."""
    ways = [("plus", a, value - a) for a in range(1, value)]
    ways += [("minus", value + b, b) for b in range(1, 10 - value)]
    ways += [("times", a, value // a) for a in (2, 3) if value % a == 0 and value > a]
    way, a, b = draws.choice(ways)
    return SUMS[by.language][way].format(by.number(a), by.number(b))


def _colour_told(text: str, colour: Colour, by: Speaker, draws: Draws) -> tuple[str, str]:
    """A prompt with its colour as a riddle, and the fact that solves it."""
    patterns, facts = PATTERNS[by.language], FACTS[by.language]
    if colour in MIXED and draws.chance(0.4):
        paints = [by.colour(paint) for paint in draws.shuffled(MIXED[colour])]
        fact = facts["mixed"].format(*paints, by.colour(colour))
        return draws.choice(patterns["colour mixed"]).format(text, *paints), fact
    thing = draws.choice(COLOUR_OF[colour])[_english(by)]
    fact = facts["colour"].format(thing, by.colour(colour))
    return draws.choice(patterns["colour of"]).format(text, thing), fact


def _amount(split: Split, by: Speaker, draws: Draws) -> _Told:
    """``as many circles as two plus one, in the color of a banana``."""
    if split == "train" or draws.chance(0.5):
        counted = draw_shape_count(split, draws)
        core = colour_of_train(counted.shape, draws)
    else:
        known = draw_shape_colour(split, draws)
        shape = known.shape
        core = (shape, known.colour)
        counted = draws.choice(
            [ShapeCount(shape, n) for n in range(2, 7) if not is_held_out(ShapeCount(shape, n))]
        )
    shape, colour, count = counted.shape, core[1], counted.count
    plan = Plan((core,) * count, allowed=frozenset((counted,)) & HELD_OUT)
    patterns, facts = PATTERNS[by.language], FACTS[by.language]
    solved: list[str] = []
    if draws.chance(0.7):
        value = _sum(count, by, draws)
        prompt = draws.choice(patterns["sum"]).format(things=by.many(shape), number=value)
        solved.append(facts["is"].format(value, by.number(count)))
    else:
        thing = draws.choice(NUMBER_OF[count])[_english(by)]
        prompt = draws.choice(patterns["number of"]).format(things=by.many(shape), number=thing)
        solved.append(facts["as many as"].format(thing, by.counting(count)))
    if draws.chance(0.7):
        prompt, fact = _colour_told(prompt, colour, by, draws)
        solved.append(fact)
    else:
        prompt = draws.choice(patterns["known colour"]).format(prompt, by.colour(colour))
    conclusion = by.some(count, shape, colour)
    return plan, prompt, [*solved, conclusion], PromptSpec("counting", (Include(shape, count, colour),))


def _thing(split: Split, by: Speaker, draws: Draws) -> _Told:
    """``the shape with three corners, in the color of grass``."""
    known = draw_shape_colour(split, draws)
    shape, colour = known.shape, known.colour
    patterns, facts = PATTERNS[by.language], FACTS[by.language]
    solved: list[str] = []
    shaped = draws.chance(0.6)
    if shaped:
        described = SHAPE_OF[shape][_english(by)]
        prompt = draws.choice(patterns["shape of"]).format(described)
        solved.append(facts["shape"].format(described, by.some(1, shape)))
    else:
        prompt = draws.choice(patterns["shape"]).format(by.some(1, shape))
    if not shaped or draws.chance(0.5):
        prompt, fact = _colour_told(prompt, colour, by, draws)
        solved.append(fact)
    else:
        prompt = draws.choice(patterns["known colour"]).format(prompt, by.colour(colour))
    spec = PromptSpec("colors", (Include(shape, 1, colour),))
    return Plan(((shape, colour),)), prompt, [*solved, by.some(1, shape, colour)], spec


def _arrangement(split: Split, by: Speaker, draws: Draws) -> _Told:
    """``a circle that is the opposite of right of a square; the circle has the color of a banana``."""
    pair = draw_relation(split, draws)
    while is_held_out(
        ShapeRelation(pair.second, pair.relation, pair.first)
    ):  # its words would be in the prompt
        pair = draw_relation(split, draws)
    first, relation, second = pair.first, pair.relation, pair.second
    if draws.chance(0.5):
        first, relation, second = second, OPPOSITE[relation], first
    colours: list[Colour] = [draws.choice(TRAIN_COLOURS[first]), draws.choice(TRAIN_COLOURS[second])]
    core: list[Core] = [(first, colours[0]), (second, colours[1])]
    patterns, facts = PATTERNS[by.language], FACTS[by.language]
    opposite = OPPOSITE[relation]
    aside = by.beside(opposite, by.some(1, second)).removeprefix("to the ")
    prompt = draws.choice(patterns["opposite"]).format(by.some(1, first), aside)
    words = (OPPOSITE_WORDS[opposite][_english(by)], OPPOSITE_WORDS[relation][_english(by)])
    solved = [facts["opposite"].format(*words)]
    told: Colour | None = None
    if draws.chance(0.5):
        told = colours[0]
        thing = draws.choice(COLOUR_OF[told])[_english(by)]
        prompt = draws.choice(patterns["item colour"]).format(prompt, by.the(first), thing)
        solved.append(facts["colour"].format(thing, by.colour(told)))
    conclusion = by.related(by.some(1, first, told), relation, by.some(1, second))
    spec = PromptSpec("position", (Include(second), Include(first, 1, told, (relation, 0))))
    plan = Plan(tuple(core), relation, allowed=frozenset((pair,)) & HELD_OUT)
    return plan, prompt, [*solved, conclusion], spec


def _word(split: Split, by: Speaker, draws: Draws, longest: int) -> _Told:
    """``the word "TAC" backwards``; in train both are words of train."""
    letters = draws.between(3, min(longest, 5))
    for _ in range(_WORDS):
        word = draw_word(draws, split, letters)
        if len(word) > 1 and (split == "heldout" or not is_held_out(Word(word[::-1]))):
            break
    else:
        word = "TOP" if split == "train" else "DOG"
    facts, given = FACTS[by.language], word[::-1]
    spelled = [", ".join(text) if by.language == "en" else "、".join(text) for text in (given, word)]
    prompt = draws.choice(PATTERNS[by.language]["backwards"]).format(by.written(given))
    solved = [facts["backwards"].format(*spelled)]
    return Plan(text=word), prompt, [*solved, by.written(word)], PromptSpec("text", texts=(Written(word),))


_WORDS = 24
