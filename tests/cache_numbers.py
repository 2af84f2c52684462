"""What the entries of a cache stand for."""

from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.cache_entries import Entries, Int8Entries


def decode_entries(entries: Entries) -> Float[Array, "*lead t e"]:
    """Their numbers."""
    if isinstance(entries, Int8Entries):
        return entries.codes * entries.scale[..., None]
    return entries
