"""How full rows get on a realistic distribution of lengths, and budgets that fit one."""

import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.packing.distribution import Sized, compare_fill
from mammoth_jax.data.packing.fill import Window, choose, fill_row
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig, propose_budgets
from mammoth_jax.data.packing.shares import Balanced, BatchLevel, Owed


def test_rows_are_full_on_a_realistic_distribution():
    """Captions of 20 to 400 tokens, grids of 16^2 to 64^2, 1 to 5 references."""
    found = compare_fill(tokens=16_384, rows=100, samples=4096)
    assert found.packed.full["tokens"] >= 0.95
    assert found.packed.full["joint"] >= 0.9
    assert found.packed.dropped < 0.005
    assert found.packed.full["tokens"] / found.padded >= 1.8


def windows(lengths: list[Lengths], size: int) -> Window[Sized]:
    """A window over a list."""
    waiting = iter(lengths)
    return Window(lambda: Sized(next(waiting)), size)


def test_a_row_takes_the_oldest_first_and_then_what_fits_best():
    each = windows([Lengths(n) for n in (30, 50, 20, 60, 45, *[90] * 9)], 5)
    row = fill_row({0: each}, {0: 1.0}, Owed([0.0]), Lengths(100))
    assert [sample.lengths.tokens for _, sample in row] == [30, 60]
    row = fill_row({0: each}, {0: 1.0}, Owed([0.0]), Lengths(100))
    assert [sample.lengths.tokens for _, sample in row] == [50, 45]
    row = fill_row({0: each}, {0: 1.0}, Owed([0.0]), Lengths(100))
    assert [sample.lengths.tokens for _, sample in row] == [20]


def test_the_scarce_array_decides():
    room = np.asarray([100, 0, 0, 0, 0, 10, 4])
    waiting = np.asarray([[60, 0, 0, 0, 0, 11, 1], [50, 0, 0, 0, 0, 2, 1], [45, 0, 0, 0, 0, 9, 1]])
    assert choose(waiting, room, np.asarray([100, 0, 0, 0, 0, 100, 4]), oldest=True) == 1
    assert choose(waiting, room, np.asarray([100, 0, 0, 0, 0, 10, 4]), oldest=False) == 2
    assert choose(waiting[:1], room, room, oldest=True) is None


def test_a_pool_that_is_behind_goes_first():
    pools = {0: windows([Lengths(10)] * 90, 4), 1: windows([Lengths(30)] * 90, 4)}
    owed = Owed([0.0, 0.0])
    tokens = [0, 0]
    for _ in range(20):
        for pool, sample in fill_row(pools, Balanced().turn((1, 3), 0, 0), owed, Lengths(100)):
            tokens[pool] += sample.lengths.tokens
    assert tokens == [500, 1500]


def test_steps_of_pools_follow_the_seed():
    turns = [tuple(BatchLevel().turn((1, 2), seed, step)) for seed in (0, 1) for step in range(30)]
    assert turns[:30].count((0,)) == turns[30:].count((0,)) == 10
    assert turns[:30] != turns[30:]


def test_proposed_budgets_hold_the_longest_sample_and_the_mean():
    lengths = [Lengths(100, 0, 30, 0, 50, 80, 1), Lengths(200, 40, 30, 90, 50, 170, 1), Lengths(60)]
    found = propose_budgets(lengths, tokens=1200, multiple=16, joint_slack=0, slack=0)
    assert found == Lengths(1200, 144, 208, 304, 336, 848, 7)
    assert propose_budgets(lengths, tokens=200, multiple=16, slack=0).references == 96
    with pytest.raises(InputError, match="the longest of 200 tokens, for rows of 199"):
        propose_budgets(lengths, tokens=199)


def test_budgets_that_make_no_row_are_refused():
    with pytest.raises(InputError, match="give all of them, or none"):
        PackingConfig(tokens=100, targets=10)
    with pytest.raises(InputError, match="window 0 at least 1"):
        PackingConfig(tokens=100, window=0)
