"""Grouped products by ``jax.lax.ragged_dot``."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.grouped import grouped_ffn
from mammoth_jax.ops.routed_ffn.per_device import route_per_device


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Runs on every platform; the experts' kernels are stacked for each call."""

    reads_stacks: ClassVar[bool] = False

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`."""
        return route_per_device(functools.partial(grouped_ffn, _ragged), x, experts, expert, weights)


def _ragged(
    rows: Float[Array, "n d"], kernels: tuple[Float[Array, "d f"], ...], counts: Int[Array, " E"]
) -> Float[Array, "n f"]:
    return jax.lax.ragged_dot(rows, jnp.stack(kernels), counts, preferred_element_type=rows.dtype)
