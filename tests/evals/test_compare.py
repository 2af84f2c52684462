"""Comparisons: what counts as a pass and what as a miss."""

import math

import numpy as np
import pytest

from mammoth_jax.evals.vectors.compare import compare_leaf, compare_tensor, leaves


def test_error_is_the_largest_absolute_difference():
    result = compare_tensor("x", [1.0, 2.5], np.array([1.0, 2.0], np.float32), tolerance=0.5)
    assert (result.error, result.ratio, result.passed) == (0.5, 1.0, True)
    assert not compare_tensor("x", [1.0, 2.51], np.array([1.0, 2.0], np.float32), tolerance=0.5).passed


@pytest.mark.parametrize("got", [[1.0, math.nan], [1.0, math.inf], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_not_a_number_infinity_or_another_shape_misses_whatever_the_tolerance(got):
    assert not compare_tensor("x", got, np.array([1.0, 2.0], np.float32), tolerance=1e9).passed


def test_integers_are_compared_exactly_even_beyond_float64():
    recorded = np.array([2**53, 5], np.int64)
    assert compare_tensor("ids", recorded.copy(), recorded, tolerance=0).passed
    assert not compare_tensor("ids", recorded + np.array([1, 0]), recorded, tolerance=0).passed


def test_pictures_may_differ_by_the_recorded_number_of_levels_without_wrapping_around():
    recorded = np.array([0, 255], np.uint8)
    assert compare_tensor("u8", np.array([1, 254], np.uint8), recorded, tolerance=1).passed
    assert compare_tensor("u8", np.array([255, 0], np.uint8), recorded, tolerance=1).error == 255


def test_booleans_against_recorded_integers():
    recorded = np.array([1, 0], np.int64)
    assert compare_tensor("mask", np.array([True, False]), recorded, tolerance=0).passed
    assert not compare_tensor("mask", np.array([True, True]), recorded, tolerance=0).passed


def test_recorded_values_that_are_not_numbers_must_be_reproduced():
    recorded = np.array([math.nan, math.inf, 1.0], np.float32)
    assert compare_tensor("x", recorded.copy(), recorded, tolerance=1e-6).passed
    assert not compare_tensor("x", np.array([0.0, math.inf, 1.0]), recorded, tolerance=1e-6).passed


def test_leaves_are_found_in_mappings_and_lists():
    assert dict(leaves({"a": [{"b": "x"}, 2], "c": [], "d": {}})) == {
        "a.0.b": "x",
        "a.1": 2,
        "c": [],
        "d": {},
    }


@pytest.mark.parametrize(
    ("got", "recorded", "passed"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (np.int32(3), 3, True),
        (3, "3", False),
        (True, 1, False),
        ((), [], True),
    ],
)
def test_leaves_are_equal_or_missed(got, recorded, passed):
    assert compare_leaf("@x", got, recorded).passed is passed
