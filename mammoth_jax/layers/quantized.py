"""Affine maps whose kernel is held in int8, a quarter of float32's bytes, with a float32 scale an output column.

Decoding reads every weight for a few tokens, so its time is that of reading them.  The scale multiplies the product and
not the kernel: no floating-point kernel is ever written.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.layers.linear import Linear, contract

M = TypeVar("M", bound=nnx.Module)
LARGEST = 127
STACKED = "layers"  # the axis name that layers/stack.py gives


@functools.partial(jax.jit, static_argnames=("stacked", "inputs"))
def quantize_kernel(
    kernel: Float[Array, "*stack_in_out"], *, stacked: int, inputs: int
) -> tuple[Int[Array, "*stack_in_out"], Float[Array, "*stack_out"]]:
    """The nearest int8 codes, and the scale of each output column: its largest weight is 127 of them.

    Args:
      kernel: ``(*stack, *inputs, *outputs)``.
      stacked, inputs: how many dimensions are of the stack and of the input.
    """
    axes = tuple(range(stacked, stacked + inputs))
    kernel = kernel.astype(jnp.float32)
    scale = jnp.max(jnp.abs(kernel), axis=axes, keepdims=True) / LARGEST
    codes = jnp.round(kernel / jnp.maximum(scale, 1e-30)).astype(jnp.int8)
    return codes, jnp.squeeze(scale, axes)


class Int8Linear(nnx.Module):
    """A :class:`Linear`, or a stack of them, rounded: ``y = (x @ codes) * scale + bias``.

    ``codes`` have the kernel's shape and axis names, ``scale`` those of the layers and outputs, so that both shard as
    the kernel does.  For inference: nothing can be trained.
    """

    def __init__(self, linear: Linear):
        kernel, inputs = linear.kernel, linear.num_inputs
        names = tuple(kernel.axes)
        if len(names) != kernel.ndim:
            raise ValueError(f"a kernel {kernel.shape} named {names}: round the stack, not a layer taken out")
        stacked = names.count(STACKED)
        codes, scale = quantize_kernel(kernel[...], stacked=stacked, inputs=inputs)
        self.num_inputs = inputs
        self.input_axes, self.output_axes = linear.input_axes, linear.output_axes
        self.codes = nnx.Param(codes, axes=names)
        self.scale = nnx.Param(scale, axes=names[:stacked] + names[stacked + inputs :])
        self.bias = linear.bias

    def __call__(self, x: Float[Array, "..."], *, out_dtype: DTypeLike | None = None) -> Float[Array, "..."]:
        """Applies the map; the product is summed and scaled in float32, then rounded to ``out_dtype`` or ``x``'s."""
        y = contract(x, self.codes[...], self.input_axes, self.output_axes, jnp.float32)
        y = (y * self.scale[...]).astype(out_dtype or x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)

    @property
    def kernel(self) -> Float[Array, "..."]:
        """The kernel that the codes stand for, made anew in float32: for what needs kernels themselves (one map alone,
        not a stack), such as tokens of several experts in ``ops/routed_ffn``."""
        outputs = self.scale.shape
        return self.codes[...] * self.scale[...].reshape((1,) * self.num_inputs + tuple(outputs))


def quantize_linears(module: M) -> M:
    """The module with every :class:`Linear` in it, stacked ones too, as an :class:`Int8Linear`; the rest is shared."""
    return jax.tree.map(
        lambda x: Int8Linear(x) if isinstance(x, Linear) else x,
        module,
        is_leaf=lambda x: isinstance(x, Linear),
    )
