"""Every expert on every token, and the token's own kept: the definition, and the choice where a sort costs more."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels, swiglu


@dataclasses.dataclass(frozen=True)
class Both:
    """Costs ``E`` times one expert; needs no mesh of its own, since the compiler shards plain products."""

    reads_stacks: ClassVar[bool] = False

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`."""
        if weights is None:
            out = swiglu(x, experts[0])
            for number, kernels in enumerate(experts[1:], start=1):
                out = jnp.where(expert == number, swiglu(x, kernels), out)
            return out
        total = jnp.zeros(x.shape, jnp.float32)
        for number, kernels in enumerate(experts):
            share = jnp.sum(jnp.where(expert == number, weights.astype(jnp.float32), 0.0), axis=-1)
            total = total + share[..., None] * swiglu(x, kernels).astype(jnp.float32)
        return total.astype(x.dtype)
