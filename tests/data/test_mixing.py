"""The order of records: exact shares, every record once a pass, any part of it by number."""

import collections

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data import mixing
from mammoth_jax.data.mixing import Branch, Interleave, Leaf, Order, Shuffle, shares


@pytest.mark.parametrize(
    "weights", [(3, 1), (1, 1, 1), (0.7, 0.1, 0.2), (1, 1000), (2.5, 1, 4, 0.5), (1,)], ids=str
)
def test_every_prefix_has_the_weights_as_shares(weights):
    merged = Interleave(weights)
    counts = [0] * len(weights)
    for n in range(3000):
        which, at = merged[n]
        assert at == counts[which]  # each sequence is run through without gaps
        counts[which] += 1
        for i, weight in enumerate(weights):
            assert abs(counts[i] - (n + 1) * weight / sum(weights)) < i + 1


def test_three_to_one_with_a_fifth_of_the_three_by_nesting_or_plainly():
    nested = Branch((Branch((Leaf(0, 9), Leaf(1, 5)), (4, 1)), Leaf(2, 7)), (3, 1))
    plain = Branch((Leaf(0, 9), Leaf(1, 5), Leaf(2, 7)), (0.6, 0.15, 0.25))
    assert shares(nested) == shares(plain)
    for tree in (nested, plain):
        order = Order(tree, seed=0)
        assert collections.Counter(order[n].source for n in range(400)) == {0: 240, 1: 60, 2: 100}


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("small", [0, 7], ids=["without a table", "by a table"])
def test_each_pass_is_another_permutation(length, small, monkeypatch):
    monkeypatch.setattr(mixing, "SMALL", small)
    shuffle = Shuffle(length, seed=4)
    passes = [[shuffle[e * length + n] for n in range(length)] for e in range(2)]
    for epoch, drawn in enumerate(passes):
        assert sorted(index for index, _ in drawn) == list(range(length))
        assert {e for _, e in drawn} == {epoch}
    if length > 1:
        assert [i for i, _ in passes[0]] != [i for i, _ in passes[1]]
        assert [i for i, _ in passes[0]] != [Shuffle(length, seed=5)[n][0] for n in range(length)]
    again = Shuffle(length, seed=4)  # asked for backwards
    assert [again[n] for n in reversed(range(length))] == passes[0][::-1]


def test_sources_of_equal_length_are_shuffled_differently():
    order = Order(Branch((Leaf(0, 50), Leaf(1, 50)), (1, 1)), seed=0)
    drawn = [order[n] for n in range(100)]
    assert [d.index for d in drawn if d.source == 0] != [d.index for d in drawn if d.source == 1]


@pytest.mark.parametrize("weights", [(1, 0), (-1, 2), (float("nan"), 1), (float("inf"), 1)], ids=str)
def test_weights_that_are_not_positive_are_refused(weights):
    with pytest.raises(InputError, match="must be positive"):
        Interleave(weights)
