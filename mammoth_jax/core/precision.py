"""Number formats: what the weights and activations are held in, and how exact matrix products are."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def parse_dtype(name: str | None) -> jnp.dtype:
    """``float32`` or ``bfloat16``; ``None`` is float32 on a CPU and bfloat16 elsewhere.

    Raises:
      InputError: another name.
    """
    if name is None:
        return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}; expected one of {sorted(DTYPES)}")
    return jnp.dtype(DTYPES[name])


def matmul_precision(name: str):
    """A context in which fp32 products use the backend's default (``default``) or full fp32 (``highest``).

    Raises:
      InputError: another name.
    """
    if name not in ("default", "highest"):
        raise InputError(f"unknown precision {name!r}; expected default or highest")
    return jax.default_matmul_precision(name)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x`` in float32, or in float64 if it is: what statistics and losses are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
