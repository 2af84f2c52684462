"""Held-out combinations: enough of them, never in train, always in heldout."""

import collections
import functools

import pytest

from mammoth_jax.data.synthetic import split, words
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.synthetic.split import (
    HELD_OUT,
    SHAPE_COLOURS,
    SHAPE_COUNTS,
    SHAPE_RELATIONS,
    Word,
    combinations,
    held_out_in,
    is_held_out,
)

SCENES = 3000


@functools.cache
def scenes(which: split.Split) -> list[Scene]:
    source = SyntheticScenes(which)
    return [source.scene(index) for index in range(SCENES)]


@functools.cache
def shown(which: split.Split) -> collections.Counter:
    return collections.Counter(c for scene in scenes(which) for c in combinations(scene))


@pytest.mark.parametrize("universe", [SHAPE_COLOURS, SHAPE_COUNTS, SHAPE_RELATIONS])
def test_a_fifth_of_the_combinations_is_held_out(universe):
    held_out = [c for c in universe if is_held_out(c)]
    assert 0.2 <= len(held_out) / len(universe) <= 0.3


def test_a_fifth_of_the_words_is_held_out():
    numbers = [str(n) for n in range(10_000)]
    triples = [a + b + c for a in words.LETTERS for b in words.LETTERS for c in words.LETTERS]
    for universe in (words.ENGLISH, numbers, triples):
        assert 0.2 <= sum(is_held_out(Word(word)) for word in universe) / len(universe) <= 0.3


def test_the_table_is_part_of_the_contract():
    """A changed table would put what older models trained on into heldout."""
    assert len(HELD_OUT) == 80
    expected = {
        split.ShapeColour("circle", "yellow"),
        split.ShapeCount("star", 2),
        split.ShapeRelation("circle", "above", "cross"),
    }
    assert expected <= HELD_OUT
    assert [word for word in ("CAT", "DOG", "7", "42") if is_held_out(Word(word))] == ["DOG"]


def test_train_never_shows_a_held_out_combination():
    for index, scene in enumerate(scenes("train")):
        assert not held_out_in(scene), index


def test_heldout_always_shows_a_held_out_combination():
    for index, scene in enumerate(scenes("heldout")):
        assert held_out_in(scene), index


@pytest.mark.parametrize("universe", [SHAPE_COLOURS, SHAPE_COUNTS, SHAPE_RELATIONS])
def test_every_combination_occurs_in_its_split(universe):
    missing_in_train = [c for c in universe if not is_held_out(c) and not shown("train")[c]]
    missing_in_heldout = [c for c in universe if is_held_out(c) and not shown("heldout")[c]]
    assert not missing_in_train
    assert not missing_in_heldout


def test_train_shows_every_letter_and_digit():
    letters = {letter for c in shown("train") if isinstance(c, Word) for letter in c.content}
    assert letters == set(words.LETTERS) | set("0123456789")
