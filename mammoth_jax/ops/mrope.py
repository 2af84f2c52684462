"""Multi-axis rope of the decoders: each frequency turns with one of the axes (time, row, column)."""

import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.types import Array, Float, Int

Layout = Literal["interleaved", "chunked"]


@functools.lru_cache
def axis_of_frequency(section: tuple[int, int, int], layout: Layout) -> tuple[int, ...]:
    """For each of the ``sum(section)`` frequencies the axis that it reads: 0 time, 1 row, 2 column.

    ``chunked`` (Qwen2.5-VL) gives each axis a contiguous run.  ``interleaved`` (Qwen3-VL) gives frequency ``3i + 1``
    to the row and ``3i + 2`` to the column for ``i`` below their section, and everything else to time.
    """
    if layout == "chunked":
        return tuple(np.repeat(np.arange(3), section).tolist())
    axes = np.zeros(sum(section), int)
    for axis in (1, 2):
        axes[axis : 3 * section[axis] : 3] = axis
    return tuple(axes.tolist())


def mrope_tables(
    positions: Int[Array, "3 b s"], section: tuple[int, int, int], layout: Layout, theta: float
) -> tuple[Float[Array, "b s half"], Float[Array, "b s half"]]:
    """Cosine and sine of every frequency at every position, float32."""
    half = sum(section)
    frequencies = jnp.asarray(theta ** -(np.arange(half) / half), jnp.float32)
    axes = np.asarray(axis_of_frequency(section, layout))
    turned = jnp.moveaxis(positions[axes], 0, -1).astype(jnp.float32)
    angles = turned * frequencies
    return jnp.cos(angles), jnp.sin(angles)
