"""The KL term: against the integral that it is, at the standard normal law, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.models.vae import Posterior
from mammoth_jax.objectives.kl import kl_loss
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures


def test_a_standard_normal_posterior_costs_nothing_and_others_something():
    zero = jnp.zeros((2, 3))
    assert kl_loss(Posterior(zero, zero)).mean == 0
    assert kl_loss(Posterior(zero + 1, zero)).mean == 0.5
    assert kl_loss(Posterior(zero, zero + 1e-3)).mean > 0


def test_kl_is_the_integral_of_the_log_ratio():
    mean, logvar = 0.7, -1.2
    x = np.linspace(-12, 12, 200_001)

    def log_density(mean: float, logvar: float) -> np.ndarray:
        return -0.5 * ((x - mean) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi))

    p = log_density(mean, logvar)
    expected = np.trapezoid(np.exp(p) * (p - log_density(0, 0)), x)
    found = kl_loss(Posterior(jnp.full((4,), mean), jnp.full((4,), logvar))).mean
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_gradient_is_that_of_the_value():
    with jax.enable_x64(True):
        moments = (pictures(1, 2, 2, 3, dtype=np.float64), pictures(1, 2, 2, 3, seed=1, dtype=np.float64))
        assert_gradient(lambda m: kl_loss(Posterior(*m)).mean, moments)
