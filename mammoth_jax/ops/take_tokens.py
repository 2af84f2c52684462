"""Tokens of a row put in another order: how packed sequences are cut up and joined."""

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Int, Shaped


def take_tokens(x: Shaped[Array, "b n *rest"], index: Int[Array, "b m"]) -> Shaped[Array, "b m *rest"]:
    """``x[i, index[i, j]]``, zeros where ``index`` is negative.

    No token may be taken twice: then the gradient goes back by a scatter without collisions.
    """
    n = x.shape[1]
    # each negative entry has a place of its own past the end, where reads give zeros and gradients are dropped
    places = jnp.where(index < 0, n + jnp.arange(index.shape[1]), index)

    def row(x: jax.Array, places: jax.Array) -> jax.Array:
        return x.at[places].get(mode="fill", fill_value=0, unique_indices=True)

    return jax.vmap(row)(x, places)


def inverse_index(index: Int[Array, "b m"], length: int) -> Int[Array, "b length"]:
    """Where :func:`take_tokens` put each of ``length`` tokens, -1 for those that were not taken."""
    m = index.shape[1]
    places = jnp.where(index < 0, length + jnp.arange(m), index)

    def row(places: jax.Array) -> jax.Array:
        empty = jnp.full((length,), -1, index.dtype)
        return empty.at[places].set(jnp.arange(m, dtype=index.dtype), mode="drop", unique_indices=True)

    return jax.vmap(row)(places)


def place_in_segment(
    segments: Int[Array, "b s"] | Bool[Array, "b s"], num_segments: int
) -> Int[Array, "b s"]:
    """How many earlier tokens of the row are of the same segment, ``1..num_segments``; 0 in segment 0.

    Segments may have gaps.
    """
    own = segments[..., None].astype(jnp.int32) == jnp.arange(1, num_segments + 1)
    count = jnp.cumsum(own, axis=1, dtype=jnp.int32)
    return jnp.maximum(jnp.sum(jnp.where(own, count, 0), axis=-1) - 1, 0)
