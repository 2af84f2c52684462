"""Judging: calls that other processes can do, in order."""

import pickle

import numpy as np
import pytest

from mammoth_jax.evals.synthetic.judging import Names
from mammoth_jax.evals.synthetic.marks import ceiling_calls, drawing_calls, work_off
from mammoth_jax.evals.synthetic.samples import samples
from tests.evals.stand_in import silent
from tests.evals.synthetic.true_scenes import exact, flat


def test_every_sample_is_held_against_others_of_its_kind_and_never_against_itself(tmp_path):
    found = samples("drawing", 4)
    for _, (sample, others, *_) in drawing_calls(found, tmp_path, 1, Names("drawing")):
        kind = [other.spec for other in found if other.kind == sample.kind and other is not sample]
        assert len(others) == 5 and all(any(other is spec for spec in kind) for other in others)
    alone = samples("drawing", 1)
    assert all(not call[1][1] for call in drawing_calls(alone, tmp_path, 1, Names("drawing")))


def test_calls_travel_to_other_processes():
    calls = list(ceiling_calls(samples("drawing", 1), {"vae": exact}, "drawing"))
    for function, arguments in pickle.loads(pickle.dumps(calls)):
        assert function(*arguments)[0].kind in {call[1][0].kind for call in calls}


@pytest.mark.slow
def test_two_processes_find_what_one_does():
    calls = list(ceiling_calls(samples("drawing", 1), {"vae": exact, "mammothtok": flat}, "drawing"))
    reports = []
    one = list(work_off(calls, 1, silent))
    two = list(work_off(calls, 2, lambda *report: reports.append(report)))
    assert one == two and reports[-1] == ("scoring", len(calls), len(calls))
    assert np.mean([mark.value for mark in one if mark.measure == "vae"]) == 1
