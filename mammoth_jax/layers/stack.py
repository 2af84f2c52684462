"""Stacks of equal layers: one module whose parameters have a leading layer axis, run by a scan.

Compile time does not grow with depth.  Where a platform's products cannot read a layer's weights out of the stack (CPU:
each would be copied at every use), :func:`unstack_layers` gives the layers one by one, once before a loop.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
Carry = TypeVar("Carry")


def stack_layers(make: Callable[[], M], num_layers: int) -> M:
    """``num_layers`` equal layers as one module with parameters ``[num_layers, ...]``."""
    stacked = jax.vmap(lambda _: make())(jnp.arange(num_layers))

    def name_axis(leaf: Any) -> Any:
        return leaf.replace(axes=("layers", *leaf.axes)) if isinstance(leaf, nnx.Param) else leaf

    return jax.tree.map(name_axis, stacked, is_leaf=lambda x: isinstance(x, nnx.Param))


def unstack_layers(stack: M) -> nnx.List[M]:
    """The layers of a stack one by one, each with weights of its own (copies); :func:`scan_layers` takes both."""
    num_layers = jax.tree.leaves(stack)[0].shape[0]
    return nnx.List([jax.tree.map(lambda x, i=i: x[i], stack) for i in range(num_layers)])


def scan_layers(
    body: Callable[[Carry, M, Any], tuple[Carry, Any]], carry: Carry, layers: M | nnx.List[M], xs: Any = None
) -> tuple[Carry, Any]:
    """Runs ``body(carry, layer, x)`` over a stack; ``xs`` holds what differs from layer to layer besides weights."""
    if not isinstance(layers, nnx.List):
        return jax.lax.scan(lambda c, item: body(c, item[0], item[1]), carry, (layers, xs))
    collected = []
    for i, layer in enumerate(layers):
        carry, y = body(carry, layer, jax.tree.map(lambda x, i=i: x[i], xs))
        collected.append(y)
    return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *collected)
