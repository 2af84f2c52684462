"""Semantic alignment: minimising it aligns, scale does not matter, grids may differ."""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.objectives.semantic import semantic_loss
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures


def test_the_loss_is_zero_for_aligned_and_two_for_opposed_features():
    teacher = pictures(2, 3, 3, 5)
    losses = [semantic_loss(factor * teacher, teacher).mean for factor in (2.0, -0.5)]
    np.testing.assert_allclose(losses, [0, 2], atol=1e-6)


def test_a_teacher_on_a_finer_grid_is_averaged_onto_the_features_grid():
    coarse = pictures(1, 2, 2, 5)
    fine = jnp.repeat(jnp.repeat(coarse, 8, axis=1), 8, axis=2)
    assert semantic_loss(coarse, fine).mean < 0.05
    assert semantic_loss(coarse[:, ::-1], fine).mean > 0.5


def test_the_teacher_gets_no_gradient_and_a_token_of_zeros_a_finite_one():
    features, teacher = pictures(1, 2, 2, 5).at[0, 0, 0].set(0), pictures(1, 2, 2, 5, seed=1)
    own, others = jax.grad(lambda f, t: semantic_loss(f, t).mean, argnums=(0, 1))(features, teacher)
    assert np.isfinite(own).all() and np.abs(own[0, 1, 1]).max() > 0
    assert np.abs(others).max() == 0


def test_the_gradient_is_that_of_the_value():
    with jax.enable_x64(True):
        teacher = pictures(2, 4, 4, 5, seed=1, dtype=np.float64)
        features = pictures(2, 2, 3, 5, dtype=np.float64)
        assert_gradient(lambda x: semantic_loss(x, teacher).mean, features)
