"""Attention of a row's newest tokens to its cache and to themselves.

The cache is read as it was before these tokens and is written once for all layers afterwards: within the scan over
layers it is a constant, of which nothing needs copying.
"""

import jax.numpy as jnp

from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.decode_pallas_tpu import DecodePallasTPU
from mammoth_jax.ops.attention.decode_xla import WHOLE_CACHE, CacheView, DecodeAttention, UsedBlocks

PALLAS_TPU = DecodePallasTPU()
FEW_QUERIES = 16
"""New tokens a row up to which the kernel is meant; more are a prompt."""
SMALL_CACHE = {"cpu": 128}
"""Slots up to which all are read, with one soft-max and no loop; 1024 on other platforms."""
BLOCK = {"cpu": 128}
"""Slots of a block; 512 on other platforms.  On CPU a block must stay in the cache between its copy and its product:
16 layers of 384 slots, 8 heads of 128, one row, half in use: 46 ms whole, 29 in blocks of 256, 5.4 of 128 (one core).
"""


def decode_attention(
    query: Float[Array, "b s h e"],
    new_key: Float[Array, "b s k e"],
    new_value: Float[Array, "b s k e"],
    cache: CacheView,
    scale: float | None = None,
    implementation: DecodeAttention | None = None,
) -> Float[Array, "b s h e"]:
    """New token ``i`` of a row attends to the row's valid slots and to new tokens ``j <= i``.

    Query head ``i`` reads key/value head ``i // (h / k)``; keys and values are not repeated.  The soft-max is in
    float32.  Going back in a row is a smaller ``length``, and several tokens a row may be tried at once.
    """
    b, s, h, e = query.shape
    k = new_key.shape[2]
    grouped = query.reshape(b, s, k, h // k, e)
    rows = jnp.moveaxis(grouped, 2, 1).reshape(b, k, s * (h // k), e)
    run = implementation or choose_decode_attention(cache, s)
    out = run(
        rows,
        jnp.swapaxes(new_key, 1, 2),
        jnp.swapaxes(new_value, 1, 2),
        cache,
        e**-0.5 if scale is None else scale,
    )
    return jnp.moveaxis(out.reshape(b, k, s, h // k, e), 1, 2).reshape(b, s, h, e).astype(query.dtype)


def choose_decode_attention(cache: CacheView, num_new: int) -> DecodeAttention:
    """The implementation for these sizes on the platform that the program is compiled for."""
    platform = target_platform()
    if platform == "tpu" and num_new <= FEW_QUERIES:
        return PALLAS_TPU
    if cache.capacity <= SMALL_CACHE.get(platform, 1024):
        return WHOLE_CACHE
    return UsedBlocks(BLOCK.get(platform, 512))
