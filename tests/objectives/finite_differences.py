"""Gradients against central differences, along random directions, in float64."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_gradient(function, x, *, step=1e-6, rtol=1e-6, directions=3):
    """The gradient of a scalar function of a pytree is that of its values.  Call it with ``jax.enable_x64(True)``."""
    leaves, structure = jax.tree.flatten(x)
    assert all(leaf.dtype == jnp.float64 for leaf in leaves)
    run = jax.jit(jax.value_and_grad(lambda leaves: function(structure.unflatten(leaves))))
    value, gradient = run(leaves)
    assert value.dtype == jnp.float64
    for seed in range(directions):
        rng = np.random.default_rng(seed)
        along = [jnp.asarray(rng.standard_normal(leaf.shape)) for leaf in leaves]
        up, down = (
            run([a + sign * step * d for a, d in zip(leaves, along, strict=True)])[0] for sign in (1, -1)
        )
        expected = (up - down) / (2 * step)
        found = sum(jnp.sum(g * d) for g, d in zip(gradient, along, strict=True))
        assert abs(expected) > 1e-6  # a direction in which nothing happens would show nothing
        np.testing.assert_allclose(found, expected, rtol=rtol)
