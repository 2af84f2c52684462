"""Stacks of equal layers: one module whose parameters have a leading layer axis, run by a scan.

Compile time does not grow with depth.  Where a platform's products cannot read a layer's weights out of the stack (CPU:
each would be copied at every use), :func:`unstack_layers` gives the layers one by one, once before a loop.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.types import Array, Int
from mammoth_jax.layers.remat import remat_of

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


@nnx.register_data_type
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InStack(Generic[M]):
    """A part of a layer that stays in its stack: all layers' parameters and, inside a scan, which layer is meant.

    For kernels that read a layer's weights where they are; a custom call gets a slice as a copy only.  Not for
    training: the gradient of every layer would be as large as the stack.
    """

    stack: M
    layer: Int[Array, ""] | None = None

    def own(self) -> M:
        """The layer's part alone."""
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False), self.stack)


def scan_layers(
    body: Callable[[Carry, M, Any], tuple[Carry, Any]], carry: Carry, layers: M | nnx.List[M], xs: Any = None
) -> tuple[Carry, Any]:
    """Runs ``body(carry, layer, x)`` over a stack; ``xs`` holds what differs from layer to layer besides weights.

    A layer's parts that are :class:`InStack` are not sliced but given whole, with the number of the layer.  What is
    kept for the backward pass is the stack's own policy (``layers/remat.py``).
    """
    if not isinstance(layers, nnx.List):
        parts, structure = jax.tree.flatten(layers, is_leaf=lambda x: isinstance(x, InStack))
        sliced = [None if isinstance(part, InStack) else part for part in parts]

        def run(carry: Carry, item: Any) -> tuple[Carry, Any]:
            number, own, x = item
            layer = [
                dataclasses.replace(part, layer=number) if isinstance(part, InStack) else mine
                for part, mine in zip(parts, own, strict=True)
            ]
            return body(carry, structure.unflatten(layer), x)

        staying = [part for part in parts if isinstance(part, InStack)]
        numbers = jnp.arange(jax.tree.leaves(staying)[0].shape[0]) if staying else None
        policy = remat_of(layers)
        return jax.lax.scan(run if policy is None else policy(run), carry, (numbers, sliced, xs))
    collected = []
    for i, layer in enumerate(layers):
        policy = remat_of(layer)
        step = body if policy is None else policy(body)
        carry, y = step(carry, layer, jax.tree.map(lambda x, i=i: x[i], xs))
        collected.append(y)
    return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *collected)
