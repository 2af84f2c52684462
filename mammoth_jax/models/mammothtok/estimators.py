"""Gradients through the choice of a code: how a loss on the quantised value reaches the encoder."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.norm import l2_normalize

_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class StraightThrough:
    """The quantised value, with the identity as its Jacobian (van den Oord et al. 2017, section 3.2)."""

    def __call__(self, z: Float[Array, "... c"], codes: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """``codes`` in value; the gradient goes to ``z`` unchanged."""
        return z + jax.lax.stop_gradient(codes - z)


@dataclasses.dataclass(frozen=True)
class RotationTrick:
    """The quantised value written as a rotation and scaling of ``z``, both held constant.

    Fifty et al. 2024, "Restructuring vector quantization with the rotation trick", section 4: with the directions
    ``u`` of ``z`` and ``t`` of the code and the direction ``s`` of ``u + t``, the rotation that takes ``u`` to ``t``
    is ``I - 2 s s^T + 2 t u^T``.  Angles between gradient and code are kept on the way back to ``z``.
    """

    def __call__(self, z: Float[Array, "... c"], codes: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """``codes`` in value (but for the guards of the norms); the gradient is rotated and goes to ``z / |z|``."""
        z = l2_normalize(z)
        u = jax.lax.stop_gradient(z / (_norm(z) + _EPS))
        t = jax.lax.stop_gradient(codes / (_norm(codes) + _EPS))
        s = (u + t) / jnp.maximum(_norm(u + t), _EPS)
        scale = jax.lax.stop_gradient(_norm(codes) / (_norm(z) + _EPS))
        rotated = z - 2 * jnp.sum(z * s, -1, keepdims=True) * s + 2 * jnp.sum(z * u, -1, keepdims=True) * t
        return rotated * scale


def _norm(x: Float[Array, "... c"]) -> Float[Array, "... 1"]:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)
