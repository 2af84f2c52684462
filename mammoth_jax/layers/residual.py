"""Residual convolution blocks of the picture decoders, channels-last."""

import jax
from flax import nnx

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.norm import GroupNorm
from mammoth_jax.layers.stack import scan_layers, stack_layers, unstack_layers


class ResBlock(nnx.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``, with a 1x1 convolution of ``x`` where the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int, *, eps: float):
        self.norm1 = GroupNorm(groups, inputs, eps=eps)
        self.conv1 = Conv2d(inputs, outputs, 3)
        self.norm2 = GroupNorm(groups, outputs, eps=eps)
        self.conv2 = Conv2d(outputs, outputs, 3)
        self.shortcut = Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c2"]:
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class ResStack(nnx.Module):
    """``count`` residual blocks: ``first`` changes the width (``None`` if it stays), ``rest`` are equal and stacked."""

    def __init__(self, inputs: int, outputs: int, count: int, groups: int, *, eps: float):
        changes = inputs != outputs
        self.first = ResBlock(inputs, outputs, groups, eps=eps) if changes else None
        self.rest = (
            stack_layers(lambda: ResBlock(outputs, outputs, groups, eps=eps), count - changes)
            if count > changes
            else None
        )

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c2"]:
        if self.first is not None:
            x = self.first(x)
        if self.rest is not None:
            # XLA's convolutions on a CPU are thirty times slower inside a loop.
            blocks = unstack_layers(self.rest) if target_platform() == "cpu" else self.rest
            x, _ = scan_layers(lambda h, block, _: (block(h), None), x, blocks)
        return x
