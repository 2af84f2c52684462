"""Shapes are served as often as they occur, also when what occurs has to be found out."""

import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.schedule import MeasuredSchedule, Schedule


def test_every_prefix_has_the_weights_as_shares():
    schedule, weights = Schedule([5, 2, 1]), np.array([5, 2, 1]) / 8
    served = np.zeros(3)
    for step in range(1, 200):
        served[next(schedule)] += 1
        assert np.abs(served - weights * step).max() <= 1


def test_measured_weights_approach_what_the_pictures_are():
    kinds = np.random.default_rng(1).choice(3, size=40000, p=[0.7, 0.25, 0.05]).tolist()
    kinds[:8] = [2] * 8  # a misleading start
    schedule = MeasuredSchedule(3, kinds.__getitem__, first=8)
    served = np.bincount([next(schedule) for _ in range(4000)], minlength=3) / 4000
    seen = np.bincount(kinds[: 8 + 8 * 4000], minlength=3) / (8 + 8 * 4000)
    assert np.abs(served - seen).max() < 5e-3


def test_a_rare_shape_is_served_a_little_less_than_it_was_seen():
    def kind(number):
        return int(number % 25 == 0)

    measured = MeasuredSchedule(2, kind, first=100)
    assert [next(measured) for _ in range(1000)].count(1) in (37, 38, 39)
    exact = Schedule([24, 1])
    assert [next(exact) for _ in range(1000)].count(1) == 40


def test_a_schedule_goes_on_from_its_state():
    kinds = [0, 1, 1, None, 2, 0, 1, 0] * 50
    first = MeasuredSchedule(3, kinds.__getitem__, first=4)
    for _ in range(7):
        next(first)
    second = MeasuredSchedule(3, kinds.__getitem__, first=4)
    second.restore(first.state())
    assert [next(first) for _ in range(30)] == [next(second) for _ in range(30)]
    assert first.state() == second.state()


def test_pictures_that_cannot_be_read_give_no_schedule():
    with pytest.raises(InputError, match="none of the first 5 pictures"):
        MeasuredSchedule(2, lambda number: None, first=5)
