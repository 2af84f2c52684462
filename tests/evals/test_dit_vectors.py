"""The recorded cases of the transformer, Q-Former and schedules that are small enough to keep here."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mammoth_jax.evals.vectors import dit, flow
from mammoth_jax.evals.vectors.verify import check_case, read_set

RUNNERS = dit.RUNNERS | flow.RUNNERS
CASES = {case.name: case for case in read_set(Path(__file__).parent.parent / "vectors" / "dit")}


@pytest.mark.parametrize("name", CASES)
def test_recorded_numbers_hold(name):
    report = check_case(CASES[name], RUNNERS[name])
    assert report.passed, (report.problem, report.worst)


def test_one_scaled_weight_is_a_miss():
    case = dataclasses.replace(CASES["qformer"])
    name = "layers.1.cross_attn.out_proj.weight"
    case.__dict__["weights"] = {**case.weights, name: case.weights[name] * np.float32(1.01)}
    assert not check_case(case, RUNNERS["qformer"]).passed
