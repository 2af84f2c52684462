"""Grouped products by JAX's megablox kernels for TPU.

The kernels are called once an expert on that expert's own rows, writing into one result, so that the experts' weights
are read where they are; a stack of them would be a copy of all weights for each call.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.grouped import grouped_ffn
from mammoth_jax.ops.routed_ffn.per_device import route_per_device

Tiling = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Megablox:
    """``tiling`` is the block of rows, of the summed dimension and of the columns of each product.

    Away from a TPU the kernels are interpreted, for tests.
    """

    tiling: Tiling = (512, 1024, 1024)

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`."""
        interpret = target_platform() != "tpu"

        def product(rows: Array, kernels: tuple[Array, ...], counts: Array) -> Array:
            n = rows.shape[0]
            tile = min(self.tiling[0], -(-n // 16) * 16)
            padding = -n % tile
            padded = jnp.pad(rows, ((0, padding), (0, 0)))
            filled = counts.at[-1].add(padding)  # zeros of the last expert: no result, no gradient
            tiling = (tile, *self.tiling[1:])
            return cast(Array, _grouped(padded, kernels, filled, tiling, interpret))[:n]

        return route_per_device(functools.partial(grouped_ffn, product), x, experts, expert, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _grouped(
    rows: Float[Array, "n d"],
    kernels: tuple[Float[Array, "d f"], ...],
    counts: Int[Array, " E"],
    tiling: Tiling,
    interpret: bool,
) -> Float[Array, "n f"]:
    return _each_expert(rows, kernels, counts, tiling, interpret, transpose=False)


def _each_expert(
    rows: Array,
    kernels: tuple[Array, ...],
    counts: Array,
    tiling: Tiling,
    interpret: bool,
    *,
    transpose: bool,
) -> Array:
    """Fills the result with one expert's rows after another's."""
    width = kernels[0].shape[0 if transpose else 1]
    out = jnp.zeros((rows.shape[0], width), rows.dtype)
    for number, kernel in enumerate(kernels):
        out = gmm(
            rows,
            kernel[None],
            counts,
            preferred_element_type=rows.dtype,
            tiling=tiling,
            group_offset=jnp.asarray(number, jnp.int32),
            existing_out=out,
            transpose_rhs=transpose,
            interpret=interpret,
        )
    return out


def _forward(
    rows: Array, kernels: tuple[Array, ...], counts: Array, tiling: Tiling, interpret: bool
) -> tuple[Array, tuple[Array, tuple[Array, ...], Array]]:
    return _grouped(rows, kernels, counts, tiling, interpret), (rows, kernels, counts)


def _backward(
    tiling: Tiling,
    interpret: bool,
    residuals: tuple[Array, tuple[Array, ...], Array],
    gradient: Array,
) -> tuple[Array, tuple[Array, ...], None]:
    rows, kernels, counts = residuals
    to_rows = _each_expert(gradient, kernels, counts, tiling, interpret, transpose=True)
    to_kernels = tuple(
        tgmm(
            rows.swapaxes(0, 1),
            gradient,
            counts,
            preferred_element_type=kernel.dtype,
            tiling=tiling,
            group_offset=jnp.asarray(number, jnp.int32),
            num_actual_groups=1,
            interpret=interpret,
        )[0]
        for number, kernel in enumerate(kernels)
    )
    return to_rows, to_kernels, None


_grouped.defvjp(_forward, _backward)
