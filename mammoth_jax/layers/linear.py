"""Affine maps over the last dimensions of an array."""

import math
from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.initializers import Initializer, Normal
from mammoth_jax.core.parameters import param
from mammoth_jax.core.sharding import whole_features
from mammoth_jax.core.types import Array, Float

Size = int | Sequence[int]
Names = str | None | Sequence[str | None]


def _tuple(value, kind) -> tuple:
    return (value,) if value is None or isinstance(value, kind) else tuple(value)


class Linear(nnx.Module):
    """``y = x @ kernel + bias`` where input and output may each be several dimensions, e.g. ``embed -> (heads, e)``.

    ``kernel`` has the shape ``(*inputs, *outputs)``; it is cast to the dtype of ``x``.
    """

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        *,
        axes: tuple[Names, Names],
        bias: bool = False,
        init: Initializer = Normal(0.02),
    ):
        in_shape, out_shape = _tuple(inputs, int), _tuple(outputs, int)
        in_axes, out_axes = _tuple(axes[0], str), _tuple(axes[1], str)
        self.num_inputs = len(in_shape)
        self.input_axes, self.output_axes = in_axes, out_axes
        fans = (math.prod(in_shape), math.prod(out_shape))
        self.kernel = param((*in_shape, *out_shape), (*in_axes, *out_axes), init, fans)
        self.bias = param(out_shape, out_axes) if bias else None

    def __call__(self, x: Float[Array, "..."], *, out_dtype: DTypeLike | None = None) -> Float[Array, "..."]:
        """Applies the map; ``out_dtype`` asks for the product in another dtype (float32 logits)."""
        y = self.product(x, self.kernel[...], out_dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)

    def product(
        self, x: Float[Array, "..."], kernel: Float[Array, "..."], out_dtype: DTypeLike | None = None
    ) -> Float[Array, "..."]:
        """``x @ kernel`` for this map's kernel, or for some of its outputs."""
        return contract(x, kernel, self.input_axes, self.output_axes, out_dtype or x.dtype)


def contract(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    input_axes: tuple[str | None, ...],
    output_axes: tuple[str | None, ...],
    out_dtype: DTypeLike,
) -> Float[Array, "..."]:
    """``x @ kernel`` over ``x``'s last dimensions, as many as ``input_axes``; both sides as the axes have them lie."""
    n = len(input_axes)
    x = whole_features(x, n, across=output_axes)
    y = jax.lax.dot_general(
        x,
        kernel.astype(x.dtype),
        ((tuple(range(x.ndim - n, x.ndim)), tuple(range(n))), ((), ())),
        preferred_element_type=out_dtype,
    )
    return whole_features(y, len(output_axes), across=input_axes)
