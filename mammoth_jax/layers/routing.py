"""Hard routing of tokens to experts by their id."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.stack import InStack
from mammoth_jax.ops.routed_ffn import ExpertKernels, routed_ffn

Expert = int | Int[Array, "..."]
"""Which expert a token uses: an array, or one number when the whole batch uses the same expert.

The number is known while compiling, so the program then holds and reads that expert's weights alone; the array is an
input of the program, never a constant of it.
"""


def route(
    experts: Sequence[Callable[[Float[Array, "..."]], Float[Array, "..."]]],
    x: Float[Array, "..."],
    expert: Expert,
) -> Float[Array, "..."]:
    """Applies to each token the one expert that ``expert`` names; the leading dimensions of ``expert`` are tokens.

    With an array every expert is evaluated and the token's own is kept: the exact reference.
    """
    if isinstance(expert, int):
        return experts[expert](x)
    out = experts[0](x)
    for number, apply in enumerate(experts[1:], start=1):
        chosen = (expert == number).reshape(expert.shape + (1,) * (out.ndim - expert.ndim))
        out = jnp.where(chosen, apply(x), out)
    return out


def route_ffn(
    experts: Sequence[SwiGLU] | Sequence[InStack[SwiGLU]],
    x: Float[Array, "b s d"],
    expert: int | Int[Array, "b s"],
) -> Float[Array, "b s d"]:
    """:func:`route` for feed-forward layers without biases: tokens of several experts go through
    :func:`mammoth_jax.ops.routed_ffn.routed_ffn`, which evaluates no expert in vain where that pays.
    """
    if isinstance(expert, int):
        one = experts[expert]
        return (one.own() if isinstance(one, InStack) else one)(x)
    return routed_ffn(x, [_kernels(e) for e in experts], expert)


def _kernels(expert: SwiGLU | InStack[SwiGLU]) -> ExpertKernels:
    layer = None
    if isinstance(expert, InStack):
        expert, layer = expert.stack, expert.layer
    return ExpertKernels(expert.gate.kernel[...], expert.up.kernel[...], expert.down.kernel[...], layer)
