"""The attention that layers call, whatever runs underneath."""

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.reference import reference_attention


def attention(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b t k e"],
    value: Float[Array, "b t k e"],
    *,
    query_segments: Int[Array, "b s"] | None = None,
    key_segments: Int[Array, "b t"] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Array, "b s h e"]:
    """Soft-max attention with grouped heads: query head ``i`` reads key/value head ``i // (h / k)``.

    A query attends to the keys of its own segment; segment 0 is padding, which attends to nothing and gives zeros.
    Without segments everything is one segment.  ``causal`` compares indices within the row (keys and queries must
    then be the same sequence).  ``scale`` defaults to ``e ** -0.5``.  The soft-max is in float32.
    """
    return reference_attention(
        query,
        key,
        value,
        query_segments=query_segments,
        key_segments=key_segments,
        causal=causal,
        scale=scale,
    )
