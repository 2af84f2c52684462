"""Attention behind one function; implementations beside their plain reference."""

from mammoth_jax.ops.attention.api import attention
from mammoth_jax.ops.attention.decode import decode_attention
from mammoth_jax.ops.attention.decode_xla import CacheView
from mammoth_jax.ops.attention.table import use_attention

__all__ = ["CacheView", "attention", "decode_attention", "use_attention"]
