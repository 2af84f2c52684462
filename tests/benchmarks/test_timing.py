"""Timings: what is counted, and in which order."""

import pytest

from mammoth_jax.benchmarks.timing import Timing, time_alternated, time_calls


class Clock:
    """Time passes only in the calls that are timed."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, record=None, name=None):
        """A call that takes so long."""

        def call():
            self.now += seconds
            if record is not None:
                record.append(name)

        return call


def test_the_median_and_the_ends_come_from_the_samples():
    timing = Timing((3.0, 1.0, 10.0))
    assert (timing.median, timing.low, timing.high) == (3.0, 1.0, 10.0)
    assert timing.to_json() == {"median_s": 3.0, "min_s": 1.0, "max_s": 10.0, "samples": 3}
    with pytest.raises(ValueError, match="at least one"):
        Timing(())


def test_the_first_call_is_not_counted():
    clock = Clock()
    durations = iter([100.0, 2.0, 3.0, 5.0, 4.0])

    def call():
        clock.now += next(durations)

    assert time_calls(call, repeats=3, clock=clock).samples == (3.0, 5.0, 4.0)


def test_short_calls_are_repeated_within_a_sample():
    clock, calls = Clock(), []
    timing = time_calls(clock.work(0.25, calls), repeats=2, shortest=1.0, clock=clock)
    assert timing.samples == (0.25, 0.25)
    assert len(calls) == 2 + 2 * 4


def test_alternated_calls_take_turns():
    clock, order = Clock(), []
    calls = {"ours": clock.work(1.0, order, "ours"), "theirs": clock.work(2.0, order, "theirs")}
    timings = time_alternated(calls, repeats=3, clock=clock)
    assert order[4:] == ["ours", "theirs"] * 3 and sorted(order[:4]) == ["ours"] * 2 + ["theirs"] * 2
    assert timings["ours"].samples == (1.0,) * 3 and timings["theirs"].median == 2.0
