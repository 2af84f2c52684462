"""Solvers of ``dx/dt = v(x, t)`` from time 0 to 1, one step at a time; each row has its own times.

A solver is a frozen object.  What a step must remember is an explicit carry, so that a sampling loop can hold it in a
``lax.scan`` and a caller can stop and go on anywhere.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.flow.path import expand_time, predict_data

VelocityFn = Callable[[Float[Array, "b *rest"], Float[Array, " b"]], Float[Array, "b *rest"]]


@runtime_checkable
class Solver(Protocol):
    """One step of a solver.

    ``evaluations`` is the number of velocity evaluations in a step.
    """

    @property
    def evaluations(self) -> int: ...

    def start(self, x: Float[Array, "b *rest"]) -> Any:
        """The carry before the first step."""
        ...

    def step(
        self,
        velocity: VelocityFn,
        carry: Any,
        x: Float[Array, "b *rest"],
        t: Float[Array, " b"],
        t_next: Float[Array, " b"],
    ) -> tuple[Float[Array, "b *rest"], Any]:
        """``x`` at ``t_next`` and the next carry."""
        ...


@dataclasses.dataclass(frozen=True)
class Euler:
    """First order: ``x + h v``."""

    @property
    def evaluations(self) -> int:
        return 1

    def start(self, x: Float[Array, "b *rest"]) -> None:
        return None

    def step(
        self, velocity: VelocityFn, carry: None, x: Array, t: Array, t_next: Array
    ) -> tuple[Array, None]:
        return x + expand_time(t_next - t, x) * velocity(x, t), None


@dataclasses.dataclass(frozen=True)
class Heun:
    """Second order: the mean of the velocities at both ends of an Euler step."""

    @property
    def evaluations(self) -> int:
        return 2

    def start(self, x: Float[Array, "b *rest"]) -> None:
        return None

    def step(
        self, velocity: VelocityFn, carry: None, x: Array, t: Array, t_next: Array
    ) -> tuple[Array, None]:
        h = expand_time(t_next - t, x)
        first = velocity(x, t)
        second = velocity(x + h * first, t_next)
        return x + h / 2 * (first + second), None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Multistep:
    """What DPM-Solver++(2M) remembers: the last data prediction, its time, and whether there is one."""

    data: Float[Array, "b *rest"]
    time: Float[Array, " b"]
    started: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095): one evaluation a step, second order.

    The semi-linear equation is solved exactly for a data prediction ``D`` that is extrapolated from the last two
    steps.  With ``sigma = 1 - t`` the exact step to ``t'`` is
    ``x' = (sigma'/sigma) x + sigma' * integral of D(s) / (1 - s)^2 ds from t to t'``.
    The first step takes ``D`` constant, which on the linear path is an Euler step; it is explicit because the
    paper's variable ``log(t / sigma)`` is infinite at time 0.

    The paper extrapolates ``D`` linearly in that variable.  Its steps do not shrink near times 0 and 1, however fine
    the grid, so from 0 to 1 the error is ``log(n) / n^2``: orders of 1.7 to 1.85 are measured, a first-order last
    step included.  Along a smooth trajectory ``dD/dt = sigma dv/dt``, so ``D`` is smooth in ``sigma^2``; extrapolated
    linearly in it, the step is ``(t' - t)^2 (D - D_last) / (sigma_last^2 - sigma^2)`` on top of Euler's.  That holds up
    to time 1 without a special last step, and order 2 is measured.
    """

    @property
    def evaluations(self) -> int:
        return 1

    def start(self, x: Float[Array, "b *rest"]) -> Multistep:
        return Multistep(jnp.zeros_like(x), jnp.zeros(x.shape[:1], x.dtype), jnp.asarray(False))

    def step(
        self, velocity: VelocityFn, carry: Multistep, x: Array, t: Array, t_next: Array
    ) -> tuple[Array, Multistep]:
        v = velocity(x, t)
        data = predict_data(x, v, t)
        spread = jnp.where(carry.started, (1 - carry.time) ** 2 - (1 - t) ** 2, 1)
        weight = jnp.where(carry.started, (t_next - t) ** 2 / spread, 0)
        x = x + expand_time(t_next - t, x) * v + expand_time(weight, x) * (data - carry.data)
        return x, Multistep(data, t, jnp.asarray(True))


SOLVERS: dict[str, Solver] = {"euler": Euler(), "heun": Heun(), "dpmpp2m": DPMSolverPP2M()}
"""By the names of the command line."""
