"""Hinge losses, R1, LeCam, the adaptive weight, and the scalar that stands for a known gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.objectives.adversarial import (
    LogitAverages,
    adaptive_weight,
    discriminator_hinge_loss,
    generator_hinge_loss,
    lecam_penalty,
    r1_penalty,
    started,
    with_cotangent,
)
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import discriminator, pictures


def test_hinge_losses_stop_at_the_margin_for_the_discriminator_only():
    real, generated = jnp.asarray([[[3.0, 0.0]]]), jnp.asarray([[[-2.0, 0.5]]])
    np.testing.assert_allclose(discriminator_hinge_loss(real, generated).mean, (0 + 1 + 0 + 1.5) / 4)
    np.testing.assert_allclose(generator_hinge_loss(generated).mean, (2 - 0.5) / 2)


def test_r1_of_a_linear_discriminator_is_half_its_squared_slope():
    slope = jnp.asarray([1.0, -2.0, 3.0])
    picture = pictures(2, 4, 4, 3)
    penalty, logits = r1_penalty(lambda x: x @ slope, picture)
    np.testing.assert_allclose(logits, picture @ slope)
    np.testing.assert_allclose(penalty.mean, 14 / 2, rtol=1e-6)


def test_r1_has_one_strength_at_any_size_of_picture():
    judge = discriminator()
    small = pictures(1, 16, 16, 3)
    large = jnp.tile(small, (1, 4, 4, 1))
    values = [float(r1_penalty(judge, picture)[0].mean) for picture in (small, large)]
    assert 0.5 < values[0] / values[1] < 2


def test_moving_averages_are_unbiased_from_the_first_step_and_wait_for_the_start():
    real, generated = jnp.full((1, 2, 2), 3.0), jnp.full((1, 2, 2), -1.0)
    averages = LogitAverages.start()
    waiting = averages.update(real, generated, decay=0.9, started=started(4, 5))
    assert float(waiting.weight) == 0 and float(waiting.real) == 0
    for step in (5, 6):
        averages = averages.update(real, generated, decay=0.9, started=started(step, 5))
        means = [averages.real / averages.weight, averages.generated / averages.weight]
        np.testing.assert_allclose(means, [3, -1], rtol=1e-5)
        np.testing.assert_allclose(lecam_penalty(real, generated, averages).mean, 16 + 16, rtol=1e-5)


def test_lecam_is_finite_before_anything_was_averaged():
    penalty = lecam_penalty(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), LogitAverages.start())
    np.testing.assert_allclose(penalty.mean, 2)


def test_the_adaptive_weight_is_the_ratio_of_the_full_gradients_at_the_last_kernel():
    layer = initialize(lambda: Conv2d(4, 3, 3), 0, single_device_mesh())
    last, target = pictures(2, 5, 6, 4), pictures(2, 5, 6, 3, seed=1)

    def reconstruction(picture):
        return jnp.mean(jnp.square(picture - target))

    def adversary(picture):
        return -jnp.mean(jnp.tanh(picture[:, ::2]))

    def norm(loss):
        return jnp.linalg.norm(jax.grad(lambda m: loss(m(last)))(layer).kernel[...])

    picture = layer(last)
    cotangents = jax.grad(reconstruction)(picture), jax.grad(adversary)(picture)
    found = adaptive_weight(layer, last, *cotangents, eps=1e-4, limit=1e4)
    np.testing.assert_allclose(found, norm(reconstruction) / (norm(adversary) + 1e-4), rtol=1e-5)
    assert float(adaptive_weight(layer, last, *cotangents, eps=1e-4, limit=0.01)) == pytest.approx(0.01)
    nothing = jnp.zeros_like(picture)
    assert float(adaptive_weight(layer, last, picture, nothing, eps=1e-9, limit=1e4)) == 1e4


def test_the_scalar_of_a_known_gradient_has_the_value_and_that_gradient():
    picture, cotangent = pictures(1, 2, 2, 3), pictures(1, 2, 2, 3, seed=1)
    value, gradient = jax.value_and_grad(lambda x: with_cotangent(jnp.sum(x**3), 2 * x, cotangent))(picture)
    np.testing.assert_allclose(value, jnp.sum(picture**3))
    np.testing.assert_allclose(gradient, 2 * cotangent)


def test_gradients_are_those_of_the_values():
    """Of the discriminator's weights, through each of its losses; the logits are away from the hinge's corners."""
    with jax.enable_x64(True):
        judge = discriminator(jnp.float64)
        real, generated = (pictures(2, 8, 8, 3, seed=seed, dtype=np.float64) for seed in (0, 1))
        averages = LogitAverages(jnp.float64(0.3), jnp.float64(-0.2), jnp.float64(0.5))

        def losses(judge):
            penalty, logits = r1_penalty(judge, real)
            of_generated = judge(generated)
            return jnp.stack(
                [
                    penalty.mean,
                    discriminator_hinge_loss(logits, of_generated).mean,
                    generator_hinge_loss(of_generated).mean,
                    lecam_penalty(logits, of_generated, averages).mean,
                ]
            )

        for i in range(4):
            assert_gradient(lambda judge, i=i: losses(judge)[i], judge)
