"""Normalisation layers: the weights of ``ops/norm.py``."""

from flax import nnx

from mammoth_jax.core.initializers import ONES
from mammoth_jax.core.parameters import param
from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops import norm as ops


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a scale."""

    def __init__(self, width: int, *, eps: float):
        self.eps = eps
        self.scale = param((width,), (None,), ONES)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return ops.rms_norm(x, self.scale[...], self.eps)


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias."""

    def __init__(self, width: int, *, eps: float):
        self.eps = eps
        self.scale = param((width,), (None,), ONES)
        self.bias = param((width,), (None,))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return ops.layer_norm(x, self.scale[...], self.bias[...], self.eps)


class GroupNorm(nnx.Module):
    """Group norm over channels-last pictures with scale and bias."""

    def __init__(self, num_groups: int, channels: int, *, eps: float):
        self.num_groups = num_groups
        self.eps = eps
        self.scale = param((channels,), (None,), ONES)
        self.bias = param((channels,), (None,))

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows cols c"]:
        return ops.group_norm(x, self.num_groups, self.scale[...], self.bias[...], self.eps)
