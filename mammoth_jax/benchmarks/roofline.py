"""What the device at hand can do: measured copy bandwidth and matrix-product rate, and the time that work must take.

Roofline model (Williams, Waterman and Patterson 2009): work of ``flops`` and ``bytes`` takes at least
``max(flops / rate, bytes / bandwidth)``.  Both rates are measured in the run's number format on the run's device; no
datasheet is used, so a fraction of the roofline is a fraction of what a plain large product or copy reaches there.
The fastest sample counts: other work on the machine can only slow a sample down.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mammoth_jax.benchmarks.timing import time_calls
from mammoth_jax.models.costs import Cost

COPY_BYTES = {"cpu": 2**27, "gpu": 2**31, "tpu": 2**30}
"""Size of the array that is copied: well above every cache."""

PRODUCT_SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192), "tpu": (4096, 8192)}
"""Sides of the square products; the best rate counts."""

COPIES = 4


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Rates of ``devices`` equal devices together."""

    device: str
    dtype: str
    copy_bytes_per_second: float
    product_flops_per_second: float
    devices: int = 1

    def seconds(self, cost: Cost) -> float:
        """The least time that the work can take."""
        return max(self.product_seconds(cost), self.copy_seconds(cost))

    def product_seconds(self, cost: Cost) -> float:
        """The least time of the floating-point operations alone."""
        return cost.flops / self.product_flops_per_second

    def copy_seconds(self, cost: Cost) -> float:
        """The least time of the memory traffic alone."""
        return cost.bytes / self.copy_bytes_per_second

    def bound(self, cost: Cost) -> str:
        """``compute`` or ``memory``, whichever takes longer."""
        return "compute" if self.product_seconds(cost) >= self.copy_seconds(cost) else "memory"

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def measure_roofline(dtype: Any, *, devices: int = 1, repeats: int = 9, scale: float = 1.0) -> Roofline:
    """Measures the default device; ``scale`` shrinks the arrays (for tests), ``devices`` multiplies the rates."""
    device = jax.devices()[0]
    size = int(COPY_BYTES.get(device.platform, 2**28) * scale)
    rates = [
        product_rate(max(8, int(side * scale)), dtype, repeats)
        for side in PRODUCT_SIDES.get(device.platform, (2048, 4096))
    ]
    return Roofline(
        device=device.device_kind,
        dtype=jnp.dtype(dtype).name,
        copy_bytes_per_second=devices * copy_bandwidth(size, dtype, repeats),
        product_flops_per_second=devices * max(rates),
        devices=devices,
    )


def copy_bandwidth(size: int, dtype: Any, repeats: int) -> float:
    """Bytes read and written a second, by adding one to an array of ``size`` bytes in place.

    A loop inside one program does it several times, on memory given up by the call before: new results would measure
    the allocation of memory.
    """
    array = jnp.zeros(size // jnp.dtype(dtype).itemsize, dtype)
    nbytes = array.nbytes

    def increment() -> jax.Array:
        nonlocal array
        array = _increment(array)
        return array

    return 2 * nbytes * COPIES / time_calls(increment, repeats=repeats).low


def product_rate(side: int, dtype: Any, repeats: int) -> float:
    """Floating-point operations a second of a product of two random square matrices.

    Random, because the power that a chip draws, and with it its clock, depends on the numbers.
    """
    x, y = (
        jax.random.normal(jax.random.key(seed), (side, side), jnp.float32).astype(dtype) for seed in (0, 1)
    )
    return 2 * side**3 / time_calls(lambda: _product(x, y), repeats=repeats).low


@functools.partial(jax.jit, donate_argnums=0)
def _increment(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, COPIES, lambda _, x: x + jnp.ones((), x.dtype), x)


@jax.jit
def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return x @ y
