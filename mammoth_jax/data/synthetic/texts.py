"""All that is said in the tasks: a listing of words and characters, and a stream of texts, to make a tokenizer from.

Written words (``"CAT"``) are spelled in capitals and digits, and nothing else is, but the first letter of an English
sentence.  So that a word never seen can be read and drawn, a tokenizer should give each capital and digit a token of
its own.  One that learns from :func:`vocabulary_corpus`, where written words are left out, does.
"""

import re
from collections.abc import Iterator
from typing import Any

from mammoth_jax.data.synthetic import (
    captions,
    chinese,
    documents,
    english,
    font,
    instructions,
    questions,
    reasoning,
    riddles,
)
from mammoth_jax.data.synthetic.language import Speaker
from mammoth_jax.data.synthetic.relations import PLACES, RELATIONS
from mammoth_jax.data.synthetic.scene import Checks, Gradient, Noise, Plain, Stripes
from mammoth_jax.data.synthetic.split import Split
from mammoth_jax.data.synthetic.tasks import (
    SyntheticDocuments,
    SyntheticDrawings,
    SyntheticEdits,
    SyntheticQuestions,
    SyntheticRiddles,
)
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, SHAPES

_WORD = re.compile(r"[a-z]+|[\u4e00-\u9fff]")
_WRITTEN = re.compile(r"[A-Z0-9]{2,}|[0-9]|(?<![A-Za-z])[A-Z](?! ?[a-z])")


def words() -> tuple[str, ...]:
    """Every English word, in small letters, and every Chinese character of the tasks, sorted."""
    return tuple(sorted({word for text in _pieces() for word in _WORD.findall(text.lower())}))


def characters() -> tuple[str, ...]:
    """Every character of the tasks, sorted."""
    found = set("".join(_pieces())) | set(font.GLYPHS) | {" "}
    return tuple(sorted(found | {letter.upper() for letter in found}))


def corpus(split: Split, count: int, seed: int = 0) -> Iterator[str]:
    """``count`` texts of all tasks in turn, a turn of a conversation at a time."""
    sources = (
        SyntheticDrawings(split=split, seed=seed, length=count),
        SyntheticEdits(split=split, seed=seed, length=count),
        SyntheticQuestions(split=split, seed=seed, length=count),
        SyntheticRiddles(split=split, seed=seed, length=count),
        SyntheticDocuments(split=split, seed=seed, length=count),
    )
    for number in range(count):
        source = sources[number % len(sources)]
        example = source.example(source[number // len(sources)])
        yield from filter(None, (*(turn.text for turn in example.turns), example.document, example.reasoning))


def vocabulary_corpus(split: Split, count: int, seed: int = 0) -> Iterator[str]:
    """The same texts without what is written in pictures, to learn a vocabulary from."""
    for text in corpus(split, count, seed):
        yield _WRITTEN.sub("", text)


def _pieces() -> list[str]:
    """The strings that texts are put together from, without the braces of patterns."""
    tables: tuple[Any, ...] = (
        captions.WRAPPINGS,
        captions.RELATION_WRAPPINGS,
        captions.DESCRIPTIONS,
        captions.PLAIN_GROUNDS,
        captions.GROUNDS,
        captions.AND_RELATION,
        captions.WITH_TEXT,
        instructions.PATTERNS,
        instructions.TOWARD,
        instructions.PREPOSITIONS,
        questions.PATTERNS,
        questions.NONE,
        reasoning.PATTERNS,
        reasoning.FACTS,
        reasoning.SUMS,
        documents.PATTERNS,
        documents.COMMAS,
        riddles.NUMBER_OF,
        riddles.COLOUR_OF,
        riddles.SHAPE_OF,
        riddles.OPPOSITE_WORDS,
    )
    speakers: tuple[Speaker, ...] = (
        *(english.English(True, wording, name) for wording in (0, 1) for name in (None, "text")),
        *(chinese.Chinese(True, wording, "的", name) for wording in (0, 1) for name in (None, "文字")),
    )
    found = [re.sub(r"\{.*?\}", "", text) for text in _strings(tables)]
    for by in speakers:
        found += _said(by)
    return found


def _strings(table: Any) -> Iterator[str]:
    """All strings in the values of nested tables."""
    if isinstance(table, str):
        yield table
        return
    for part in table.values() if isinstance(table, dict) else table:
        yield from _strings(part)


def _said(by: Speaker) -> Iterator[str]:
    """What a speaker can say of anything."""
    for shape in SHAPES:
        yield from (by.one(shape, "red"), by.some(1, shape), by.the(shape), by.many(shape))
    yield by.some(1, "circle", "orange")  # an, not a
    for colour in (*COLOURS, *BACKGROUND_COLOURS):
        yield by.colour(colour)
    for value in range(10):
        yield from (by.number(value), by.counting(value))
    for relation in RELATIONS:
        yield from (by.related("", relation, ""), by.relation(relation))
    yield from map(by.place, PLACES)
    grounds = (
        Plain("gray"),
        Gradient("gray", "gray", "right"),
        Stripes("gray", "gray", "right", 8),
        Checks("gray", "gray", 8),
        Noise("gray", "gray", 8, 0),
    )
    yield from map(by.ground, grounds)
    yield from (by.written("A", "red"), by.written("1", "red"), by.joined(["", "", ""]), by.sentence("a"))
