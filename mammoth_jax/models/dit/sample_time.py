"""Whose time a token has: a row holds one sample while sampling, and several in packed training."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampleTime:
    """Time of each sample of a row, and whose a token is.

    Attributes:
      time: 0 (noise) to 1 (data).
      embedding: of these times.
      owner: the sample of each token, from 1 on; 0 for padding.  ``None`` where a row is one sample: its values then
        serve all tokens, and nothing is spread.
    """

    time: Float[Array, "b samples"]
    embedding: Float[Array, "b samples width"]
    owner: Int[Array, "b s"] | None = None

    def of(self, owner: Int[Array, "b s"]) -> "SampleTime":
        """The same times for the tokens ``owner`` of a row; where a row is one sample, for any tokens."""
        return self if self.owner is None else dataclasses.replace(self, owner=owner)

    def spread(self, values: Float[Array, "b samples *d"]) -> Float[Array, "b #s *d"]:
        """Each token's values from its sample's, zeros for padding.

        A product with a table of ones and zeros: exact, and its gradient is a product too, where a lookup's would be a
        scatter of every token into a few rows.
        """
        if self.owner is None:
            return values
        table = jax.nn.one_hot(self.owner - 1, values.shape[1], dtype=values.dtype)
        return jnp.einsum("bsk,bk...->bs...", table, values, precision=jax.lax.Precision.HIGHEST)
