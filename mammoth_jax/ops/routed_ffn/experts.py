"""What an expert is: the three kernels of a SwiGLU."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExpertKernels:
    """Kernels of one expert, ``y = (silu(x @ gate) * (x @ up)) @ down``.

    Experts are separate arrays and never one stack, so that a program for tokens of one expert holds that one alone.
    With ``layer`` the arrays are stacks ``[l, ...]`` of all layers' kernels, and that layer is meant.
    """

    gate: Float[Array, "*l d f"]
    up: Float[Array, "*l d f"]
    down: Float[Array, "*l f d"]
    layer: Int[Array, ""] | None = None

    def own(self) -> "ExpertKernels":
        """The layer's kernels alone."""
        if self.layer is None:
            return self
        gate, up, down = (
            jax.lax.dynamic_index_in_dim(stack, self.layer, keepdims=False)
            for stack in (self.gate, self.up, self.down)
        )
        return ExpertKernels(gate, up, down)


def gated(gate: Float[Array, "*n f"], up: Float[Array, "*n f"]) -> Float[Array, "*n f"]:
    """``silu(gate) * up``; the activation is taken in float32."""
    return jax.nn.silu(gate.astype(jnp.float32)).astype(gate.dtype) * up


def swiglu(x: Float[Array, "*n d"], kernels: ExpertKernels) -> Float[Array, "*n d"]:
    """One expert on all tokens."""
    return gated(x @ kernels.gate, x @ kernels.up) @ kernels.down
