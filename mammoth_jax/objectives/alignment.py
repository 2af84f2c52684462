"""What the alignment module's queries are asked for beside the flow loss: each adds what stands at a place of its own.

A diffusion transformer that starts from nothing meets queries that say nothing of places, and a Q-Former that starts
from nothing is hardly told by the flow loss which tokens to read: the two wait for each other.  This term gives every
query a visual token of its picture, spread evenly over the raster.  The paper has no such loss; its alignment module
learns at a scale that small runs do not reach.
"""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.objectives.losses import WeightedLosses


def alignment_losses(
    added: Float[Array, "r q w"],
    source: Float[Array, "r s w"],
    sample: Int[Array, "r s"],
    visual: Bool[Array, "r s"],
    num_samples: int,
) -> WeightedLosses:
    """The mean square between what each query adds to itself and its token, of each sample: ``[r, num_samples]``.

    Args:
      added: the module's output less its learned queries, sample after sample.
      source: the projected features that the queries read; a constant here.
      sample: the sample of each token, from 1 on; 0 elsewhere.
      visual: which of them are codes; line ends and the like are no places of the picture.
      num_samples: samples of a row at most; one without visual tokens has weight 0.
    """
    rows, each = added.shape[0], added.shape[1] // num_samples
    places, number = query_places(jnp.where(visual, sample, 0), each, num_samples)
    target = jnp.take_along_axis(jax.lax.stop_gradient(source), places[..., None], axis=1)
    square = jnp.square(added.astype(jnp.float32) - target.astype(jnp.float32))
    present = number > 0
    losses = jnp.mean(square.reshape(rows, num_samples, -1), axis=-1)
    return WeightedLosses(jnp.where(present, losses, 0), present.astype(jnp.float32))


def query_places(
    sample: Int[Array, "r s"], num_queries: int, num_samples: int
) -> tuple[Int[Array, "r q"], Int[Array, "r samples"]]:
    """The token of each query, and how many tokens each sample has.

    Of a sample's ``n`` tokens query ``k`` gets number ``floor((k + 1/2) n / num_queries)``: one each where there are as
    many, else spread evenly.  What a query of a sample without tokens gets is of no use.
    """
    own = sample[..., None] == jnp.arange(1, num_samples + 1)
    number = jnp.sum(own, axis=1)
    first = jnp.cumsum(number, axis=1) - number
    order = jnp.argsort(jnp.where(sample > 0, sample, num_samples + 1), axis=1, stable=True)
    within = (2 * jnp.arange(num_queries) + 1) * number[..., None] // (2 * num_queries)
    at = jnp.minimum((first[..., None] + within).reshape(sample.shape[0], -1), sample.shape[1] - 1)
    return jnp.take_along_axis(order, at, axis=1), number
