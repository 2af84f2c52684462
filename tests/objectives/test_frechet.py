"""The Frechet distance: closed forms, streaming, singular covariances, and blur through a random network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.objectives.frechet import FeatureStatistics, frechet_distance


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_statistics_of_parts_added_in_any_order_are_those_of_the_whole():
    x = 100 + normal(50, 4)
    a, b, c = (FeatureStatistics.of(part) for part in np.split(x, [7, 30]))
    for together in ((a + b) + c, c + (a + b), b + (c + a)):
        assert together.count == 50
        np.testing.assert_allclose(together.mean, x.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(together.covariance, np.cov(x.T), rtol=1e-9, atol=1e-12)


def test_distance_has_the_closed_form_of_commuting_covariances():
    def statistics(mean: list[float], deviation: list[float]) -> FeatureStatistics:
        return FeatureStatistics(11, np.array(mean, float), 10.0 * np.diag(np.square(deviation)))

    a, b = statistics([0, 0, 1], [1, 2, 3]), statistics([2, 0, 0], [3, 2, 0])
    np.testing.assert_allclose(frechet_distance(a, b), 4 + 1 + (2**2 + 0 + 3**2), rtol=1e-12)


def test_distance_equals_the_trace_of_the_matrix_root():
    a, b = (
        FeatureStatistics.of(normal(40, 5)),
        FeatureStatistics.of(normal(60, 5, seed=1) @ normal(5, 5, seed=2)),
    )
    roots = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).real)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance) - 2 * roots.sum()
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-10)


def test_a_set_is_at_no_distance_from_itself_even_with_fewer_pictures_than_features():
    few = FeatureStatistics.of(10 * normal(8, 64))
    assert abs(frechet_distance(few, few)) < 1e-9 * np.trace(few.covariance)


def test_blur_is_a_distance_that_grows():
    """Features of a random network; the published one is checked where its weights are."""
    network = initialize(lambda: Conv2d(3, 6, 5, stride=3), 0, single_device_mesh())
    features = jax.jit(lambda x: jnp.mean(jax.nn.relu(network(x)), axis=(1, 2)))
    pictures = np.random.default_rng(0).uniform(-1, 1, (64, 16, 16, 3)).astype(np.float32)

    def blurred(times: int) -> FeatureStatistics:
        x = pictures
        for _ in range(times):
            x = (x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)) / 3
        return FeatureStatistics.of(np.asarray(features(x)))

    distances = [frechet_distance(blurred(0), blurred(times)) for times in (0, 1, 2)]
    assert abs(distances[0]) < 1e-9
    assert 1e-4 < distances[1] < distances[2]


def test_one_picture_has_no_covariance():
    one = FeatureStatistics.of(normal(1, 3))
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance(one, one)
