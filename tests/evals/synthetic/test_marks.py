"""Judging: calls that other processes can do, in order."""

import pickle
import time

import numpy as np
import pytest

from mammoth_jax.evals.synthetic import marks
from mammoth_jax.evals.synthetic.judging import Mark, Names
from mammoth_jax.evals.synthetic.marks import Call, ceiling_calls, drawing_calls, work_off
from mammoth_jax.evals.synthetic.samples import samples
from tests.evals.stand_in import silent
from tests.evals.synthetic.true_scenes import exact, flat


def test_every_sample_is_held_against_others_of_its_kind_and_never_against_itself(tmp_path):
    found = samples("drawing", 4)
    for call in drawing_calls(found, tmp_path, 1, Names("drawing")):
        sample, others, *_ = call.arguments
        kind = [other.spec for other in found if other.kind == sample.kind and other is not sample]
        assert len(others) == 5 and all(any(other is spec for spec in kind) for other in others)
    alone = samples("drawing", 1)
    assert all(not call.arguments[1] for call in drawing_calls(alone, tmp_path, 1, Names("drawing")))


def test_calls_travel_to_other_processes():
    calls = list(ceiling_calls(samples("drawing", 1), {"vae": exact}, "drawing"))
    for call, there in zip(calls, pickle.loads(pickle.dumps(calls)), strict=True):
        assert there.key == call.key and there.arguments[0].stem == call.arguments[0].stem


def mark(text: str, made: list[str]) -> list[Mark]:
    """Stands in for judging."""
    made.append(text)
    return [Mark("drawing", text, "zh", "score", 0.5, text, ("因为",))]


def test_marks_that_were_made_are_not_made_again_unless_the_scorer_is_another(tmp_path, monkeypatch):
    log, made = tmp_path / "scoring.jsonl", []
    calls = [Call(text, mark, (text, made)) for text in "abc"]
    first = list(work_off(calls[:2], 1, log, silent))
    log.write_bytes(log.read_bytes()[:-9])  # stopped in the middle of a line
    reports = []
    again = list(work_off(calls, 1, log, lambda *report: reports.append(report)))
    assert again[:2] == first and [m.kind for m in again] == ["a", "b", "c"]
    assert made == ["a", "b", "b", "c"] and reports[-1] == ("scoring", 3, 3)
    assert list(work_off(calls, 1, log, silent)) == again and len(made) == 4
    monkeypatch.setattr(marks, "scorer_digest", lambda: "another")
    assert list(work_off(calls, 1, log, silent)) == again and len(made) == 7


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path):
    calls = list(ceiling_calls(samples("drawing", 1), {"vae": exact, "mammothtok": flat}, "drawing"))
    one = list(work_off(calls, 1, tmp_path / "one", silent))
    two = list(work_off(calls, 2, tmp_path / "two", silent))
    assert one == two
    assert np.mean([mark.value for mark in one if mark.measure == "vae"]) == 1


def slow_mark(text: str) -> list[Mark]:
    """Stands in for judging that takes its time."""
    time.sleep(0.3)
    return [Mark("drawing", text, "zh", "score", 0.5, text)]


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_all_that_is_left(tmp_path):
    calls = [Call(str(n), slow_mark, (str(n),)) for n in range(400)]

    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(work_off(calls, 2, tmp_path / "log", interrupt))
    assert time.monotonic() - start < 45  # the rest would take a minute
    assert len((tmp_path / "log").read_text().splitlines()) == 1
