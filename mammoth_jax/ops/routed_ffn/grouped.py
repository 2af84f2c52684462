"""Tokens ordered by expert, then three grouped matrix products: no token is dropped, none is computed twice."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels, gated
from mammoth_jax.ops.routed_ffn.per_device import take_rows

GroupedProduct = Callable[
    [Float[Array, "n d"], tuple[Float[Array, "d f"], ...], Int[Array, " E"]], Float[Array, "n f"]
]
"""Product of each run of rows with its own kernel; the lengths of the runs sum to ``n``."""


def grouped_ffn(
    product: GroupedProduct,
    x: Float[Array, "b s d"],
    experts: Sequence[ExpertKernels],
    expert: Int[Array, "b s"],
) -> Float[Array, "b s d"]:
    """Applies to each token its one expert, by ``product``."""
    flat = expert.reshape(1, -1)
    order = jnp.argsort(flat, axis=1, stable=True)
    back = jnp.argsort(order, axis=1)
    counts = jnp.sum(flat[0, :, None] == jnp.arange(len(experts)), axis=0, dtype=jnp.int32)
    rows = take_rows(x.reshape(1, -1, x.shape[-1]), order, back)[0]
    gate = product(rows, tuple(kernels.gate for kernels in experts), counts)
    up = product(rows, tuple(kernels.up for kernels in experts), counts)
    down = product(gated(gate, up), tuple(kernels.down for kernels in experts), counts)
    return take_rows(down[None], back, order).reshape(x.shape)
