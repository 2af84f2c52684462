"""Stacks of equal layers: one module whose parameters have a leading layer axis, run by a scan.

Compile time does not grow with depth, and a layer's weights are read from the stack in place.
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


def scan_layers(
    body: Callable[[Carry, M, Any], tuple[Carry, Any]], carry: Carry, layers: M, xs: Any = None
) -> tuple[Carry, Any]:
    """Runs ``body(carry, layer, x)`` over a stack; ``xs`` holds what differs from layer to layer besides weights."""
    return jax.lax.scan(lambda c, item: body(c, item[0], item[1]), carry, (layers, xs))
