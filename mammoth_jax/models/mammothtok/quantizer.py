"""The codebook: nearest code, lookup, and the differentiable quantised value."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mammoth_jax.core.initializers import UnitRows
from mammoth_jax.core.parameters import param
from mammoth_jax.core.precision import at_least_float32
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.ops.norm import l2_normalize


class Quantized(NamedTuple):
    """What the quantiser makes of ``z``, all in float32.

    ``ids`` nearest code of each position; ``codes`` their rows of the codebook (gradient to the codebook only);
    ``z`` the compared value (normalised if the codebook is); ``output`` the codes in value with the estimator's
    gradient to ``z``; ``distances`` the squared distances to all codes.
    """

    ids: Int[Array, "..."]
    codes: Float[Array, "... c"]
    z: Float[Array, "... c"]
    output: Float[Array, "... c"]
    distances: Float[Array, "... v"]


class Quantizer(nnx.Module):
    """A table of codes; with ``l2_norm`` codes and inputs are compared on the unit sphere."""

    def __init__(self, config: MammothTokConfig):
        self.l2_norm = config.l2_norm
        self.estimator = config.estimator
        self.codebook = param((config.codebook_size, config.code_dim), ("vocab", None), UnitRows())

    def table(self) -> Float[Array, "v c"]:
        """All codes as they are used."""
        codes = at_least_float32(self.codebook[...])
        return l2_normalize(codes) if self.l2_norm else codes

    def lookup(self, ids: Int[Array, "..."]) -> Float[Array, "... c"]:
        """Codes of ``ids`` (clipped into the table), float32."""
        return jnp.take(self.table(), ids, axis=0, mode="clip")

    def encode(self, z: Float[Array, "... c"]) -> Int[Array, "..."]:
        """Ids of the nearest codes; equal distances go to the lower id."""
        return jnp.argmin(self._distances(self._prepare(z), self.table()), axis=-1).astype(jnp.int32)

    def __call__(self, z: Float[Array, "... c"]) -> Quantized:
        """Quantises with everything that the losses need; differentiable."""
        table, z = self.table(), self._prepare(z)
        distances = self._distances(z, table)
        ids = jnp.argmin(distances, axis=-1).astype(jnp.int32)
        codes = jnp.take(table, ids, axis=0)
        return Quantized(ids, codes, z, self.estimator(z, codes), distances)

    def _prepare(self, z: Float[Array, "... c"]) -> Float[Array, "... c"]:
        z = at_least_float32(z)
        return l2_normalize(z) if self.l2_norm else z

    def _distances(self, z: Float[Array, "... c"], table: Float[Array, "v c"]) -> Float[Array, "... v"]:
        # The product stays in full float32 whatever the backend's default: ids must not depend on it.
        product = jnp.einsum("...c,vc->...v", z, table, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(jnp.square(z), -1, keepdims=True) + jnp.sum(jnp.square(table), -1) - 2 * product
