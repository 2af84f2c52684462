"""Pixel losses: values, weights of pictures, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.objectives.reconstruction import l1_loss, l2_loss
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures


def test_losses_are_means_over_elements():
    picture = jnp.zeros((2, 1, 2, 3))
    target = jnp.full((2, 1, 2, 3), 0.5).at[1].set(-0.25)
    np.testing.assert_allclose(l1_loss(picture, target).mean, (0.5 + 0.25) / 2)
    np.testing.assert_allclose(l2_loss(picture, target).mean, (0.25 + 0.0625) / 2)
    assert float(l1_loss(picture, target).weight) == 12


@pytest.mark.parametrize("loss", [l1_loss, l2_loss])
def test_pictures_of_weight_zero_do_not_count(loss):
    picture, target = pictures(3, 4, 4, 3), pictures(3, 4, 4, 3, seed=1)
    weighted = loss(picture, target, jnp.asarray([1.0, 0.0, 1.0]))
    kept = loss(picture[::2], target[::2])
    np.testing.assert_allclose([weighted.total, weighted.weight], [kept.total, kept.weight], rtol=1e-6)


@pytest.mark.parametrize("loss", [l1_loss, l2_loss])
def test_gradients_are_those_of_the_values(loss):
    with jax.enable_x64(True):
        target = pictures(2, 3, 4, 3, seed=1, dtype=np.float64)
        assert_gradient(lambda x: loss(x, target).mean, pictures(2, 3, 4, 3, dtype=np.float64))


def test_bfloat16_pictures_are_compared_in_float32():
    picture = jnp.ones((1, 64, 64, 3), jnp.bfloat16)
    assert l1_loss(picture, jnp.zeros_like(picture)).total == 64 * 64 * 3
