"""The recorded cases of the vision towers, with the towers' weights alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mammoth_jax.evals.vectors import vision
from mammoth_jax.evals.vectors.verify import check_case, read_set

CASES = {case.name: case for case in read_set(Path(__file__).parent.parent / "vectors" / "vision")}


@pytest.mark.parametrize("name", CASES)
def test_recorded_numbers_hold(name):
    report = check_case(CASES[name], vision.RUNNERS[name])
    assert report.passed, (report.problem, report.worst)


@pytest.mark.parametrize("name", CASES)
def test_one_scaled_weight_is_a_miss(name):
    case = dataclasses.replace(CASES[name])
    scaled = "model.visual.blocks.2.attn.proj.weight"
    case.__dict__["weights"] = {**case.weights, scaled: case.weights[scaled] * np.float32(1.01)}
    assert not check_case(case, vision.RUNNERS[name]).passed
