"""Hard routing of tokens to experts by their id."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int

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
