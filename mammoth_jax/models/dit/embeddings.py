"""What enters the transformer besides patches: time, and the condition's features."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.core.initializers import Normal, TruncatedNormal
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.norm import RMSNorm

SINUSOID_WIDTH = 256


def time_sinusoid(
    time: Float[Array, "*b"], scale: float, width: int = SINUSOID_WIDTH
) -> Float[Array, "*b width"]:
    """``[cos | sin]`` of ``scale * time`` at frequencies ``10000 ** (-i / half)``, in float32."""
    half = width // 2
    frequency = jnp.asarray(10000.0 ** (-np.arange(half, dtype=np.float64) / half), jnp.float32)
    angle = (scale * time.astype(jnp.float32))[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Two linear layers with SiLU between them, over the sinusoid of time; float32 throughout."""

    def __init__(self, width: int, scale: float):
        self.scale = scale
        axes = ("embed", "mlp")
        self.fc1 = Linear(SINUSOID_WIDTH, width, axes=axes, bias=True, init=Normal(0.02))
        self.fc2 = Linear(width, width, axes=axes, bias=True, init=Normal(0.02))

    def __call__(self, time: Float[Array, "*b"]) -> Float[Array, "*b width"]:
        return self.fc2(jax.nn.silu(self.fc1(time_sinusoid(time, self.scale))))


class CaptionEmbedding(nnx.Module):
    """Backbone features to the transformer's width: RMSNorm and a linear layer."""

    def __init__(self, inputs: int, width: int):
        self.norm = RMSNorm(inputs, eps=1e-5)
        init = TruncatedNormal(0.02)
        self.proj = Linear(inputs, width, axes=("embed", "mlp"), bias=True, init=init)

    def __call__(self, features: Float[Array, "b s inputs"]) -> Float[Array, "b s width"]:
        return self.proj(self.norm(features.astype(self.proj.kernel.dtype)))
