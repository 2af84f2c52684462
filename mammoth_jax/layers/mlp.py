"""Feed-forward layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import Initializer, Normal
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.linear import Linear

Activation = Callable[[Array], Array]


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The tanh approximation of GELU."""
    return jax.nn.gelu(x, approximate=True)


class SwiGLU(nnx.Module):
    """``down(silu(gate(x)) * up(x))``; the gate's activation is taken in float32."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        bias: bool = False,
        init: Initializer = Normal(0.02),
    ):
        self.gate = Linear(width, hidden, axes=("embed", "mlp"), bias=bias, init=init)
        self.up = Linear(width, hidden, axes=("embed", "mlp"), bias=bias, init=init)
        self.down = Linear(hidden, width, axes=("mlp", "embed"), bias=bias, init=init)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        gate = jax.nn.silu(self.gate(x).astype(jnp.float32)).astype(x.dtype)
        return self.down(gate * self.up(x))


class MLP(nnx.Module):
    """``fc2(activation(fc1(x)))`` with biases; ``activation`` is a module-level function: equal modules are equal."""

    def __init__(self, width: int, hidden: int, out: int, *, activation: Activation):
        self.activation = activation
        self.fc1 = Linear(width, hidden, axes=("embed", "mlp"), bias=True)
        self.fc2 = Linear(hidden, out, axes=("mlp", "embed"), bias=True)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... out"]:
        return self.fc2(self.activation(self.fc1(x)))
