"""Convergence of the solvers on a velocity field that is known exactly."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.flow.schedules import warp
from mammoth_jax.flow.solvers import SOLVERS, DPMSolverPP2M, Euler, Heun, Solver

MEAN, STD = 0.3, 0.7


def gaussian_velocity(x: jax.Array, t: jax.Array) -> jax.Array:
    """``E[data - noise | x_t = x]`` for data of the normal law with MEAN and STD: the exact marginal velocity."""
    t = t[:, None]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def solve(solver: Solver, velocity: Callable, x: jax.Array, times: jax.Array) -> jax.Array:
    def body(carry, xs):
        x, state = carry
        return solver.step(velocity, state, x, *xs), None

    (x, _), _ = jax.lax.scan(body, (x, solver.start(x)), (times[:-1], times[1:]))
    return x


@pytest.mark.parametrize(("solver", "order"), [(Euler(), 0.9), (Heun(), 1.9), (DPMSolverPP2M(), 1.9)])
@pytest.mark.parametrize("m", [1.0, 1.6])
def test_measured_order_on_a_gaussian(solver, order, m):
    with jax.enable_x64(True):
        x = jnp.linspace(-2, 2, 9, dtype=jnp.float64)[:, None]
        steps = (64, 128, 256)
        errors = []
        for n in steps:
            times = warp(jnp.linspace(0, 1, n + 1, dtype=jnp.float64), m)
            times = jnp.repeat(times[:, None], len(x), axis=1)
            end = jax.jit(solve, static_argnums=(0, 1))(solver, gaussian_velocity, x, times)
            errors.append(float(jnp.abs(end - (MEAN + STD * x)).max()))
        slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope >= order
    assert -np.log2(errors[-1] / errors[-2]) >= order


@pytest.mark.parametrize("name", SOLVERS)
def test_number_of_evaluations_is_as_stated(name):
    calls = []

    def velocity(x, t):
        calls.append(t)
        return -x

    x, t = jnp.ones((2, 3)), jnp.zeros(2)
    SOLVERS[name].step(velocity, SOLVERS[name].start(x), x, t, t + 0.1)
    assert len(calls) == SOLVERS[name].evaluations


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_with_their_own_times_are_solved_independently(name):
    solver = SOLVERS[name]
    x = jnp.array([[0.5], [-1.0]])
    grid = np.linspace(0, 1, 9, dtype=np.float32)
    times = jnp.asarray(np.stack([grid, warp(grid, np.float32(3))], axis=1))
    both = solve(solver, gaussian_velocity, x, times)
    alone = [solve(solver, gaussian_velocity, x[i : i + 1], times[:, i : i + 1]) for i in range(2)]
    np.testing.assert_allclose(both, jnp.concatenate(alone), rtol=1e-6)


def test_first_multistep_step_is_an_euler_step():
    x, t, t_next = jnp.array([[0.5]]), jnp.zeros(1), jnp.full(1, 0.2)
    solver = DPMSolverPP2M()
    got, _ = solver.step(gaussian_velocity, solver.start(x), x, t, t_next)
    want, _ = Euler().step(gaussian_velocity, None, x, t, t_next)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_constant_velocity_is_solved_exactly(name):
    x = jnp.array([[1.0, -2.0]])
    times = jnp.asarray(np.linspace(0, 1, 5, dtype=np.float32))[:, None]
    end = solve(SOLVERS[name], lambda x, t: jnp.full(x.shape, 3.0), x, times)
    np.testing.assert_allclose(end, x + 3, rtol=1e-6)
