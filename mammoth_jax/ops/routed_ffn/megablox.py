"""Grouped products by JAX's megablox kernels for TPU."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.ops import gmm

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.grouped import grouped_ffn
from mammoth_jax.ops.routed_ffn.per_device import route_per_device


@dataclasses.dataclass(frozen=True)
class Megablox:
    """``tiling`` is the block of rows, of the summed dimension and of the columns of each product, in bfloat16.

    The experts' kernels are stacked for each call.  Away from a TPU the kernels are interpreted, for tests.
    """

    tiling: tuple[int, int, int] = (512, 1024, 1024)
    reads_stacks: ClassVar[bool] = False

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`."""
        product = functools.partial(_product, self.tiling, target_platform() != "tpu")
        return route_per_device(functools.partial(grouped_ffn, product), x, experts, expert, weights)


def _product(
    tiling: tuple[int, int, int],
    interpret: bool,
    rows: Float[Array, "n d"],
    kernels: tuple[Float[Array, "d f"], ...],
    counts: Int[Array, " E"],
) -> Float[Array, "n f"]:
    n = rows.shape[0]
    tile = min(tiling[0], -(-n // 16) * 16)
    # Wider numbers get narrower blocks, of as many bytes of VMEM.
    inner, columns = (max(128, size * 2 // rows.dtype.itemsize) for size in tiling[1:])
    padding = -n % tile
    padded = jnp.pad(rows, ((0, padding), (0, 0)))
    filled = counts.at[-1].add(padding)  # zeros of the last expert: no result, no gradient
    out = gmm(
        padded, jnp.stack(kernels), filled, rows.dtype, (tile, inner, columns), None, None, False, interpret
    )
    return out[:n]
