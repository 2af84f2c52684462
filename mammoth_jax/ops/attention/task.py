"""What is asked of an attention: its sizes and features, what hides keys from queries, and what it costs."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class AttentionMask:
    """Which keys a query sees.

    Attributes:
      query_segments, key_segments: a query sees keys of its own segment; 0 is padding, which sees nothing.  Both or
        neither; without them everything is one segment.
      query_offset: index of a row's first query among its keys, for ``causal``; 0 when not given.
      causal: key ``j`` is seen by query ``i`` if ``query_offset + i >= j``.
    """

    query_segments: Int[Array, "b s"] | None = None
    key_segments: Int[Array, "b t"] | None = None
    query_offset: Int[Array, " b"] | None = None
    causal: bool = False

    def allowed(self, query_length: int, key_length: int) -> Bool[Array, "rows s t"]:
        """The mask written out; ``rows`` is 1 when all rows share it."""
        mask = jnp.ones((1, query_length, key_length), bool)
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, :, None] == self.key_segments[:, None, :]
            mask = same & (self.query_segments[:, :, None] > 0)
        if self.causal:
            query = jnp.arange(query_length)[None, :]
            if self.query_offset is not None:
                query = query + self.query_offset[:, None]
            mask = mask & (query[:, :, None] >= jnp.arange(key_length))
        return mask


jax.tree_util.register_dataclass(
    AttentionMask, ["query_segments", "key_segments", "query_offset"], ["causal"]
)


@dataclasses.dataclass(frozen=True)
class AttentionTask:
    """Sizes and features by which an implementation is chosen; sizes are those of one device.

    ``gradients`` says whether the task may be differentiated, which a traced call cannot know.
    """

    platform: str
    batch: int
    query_length: int
    key_length: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    causal: bool = False
    segments: bool = False
    offset: bool = False
    gradients: bool = True

    @property
    def score_bytes(self) -> int:
        """Bytes of all scores in float32: what an implementation that holds them needs at once."""
        return 4 * self.batch * self.heads * self.query_length * self.key_length

    def flops(self, *, backward: bool = False) -> int:
        """Floating-point operations of the two matrix products (causal: of the half that is seen).

        The backward pass has five products of that size, the scores computed again among them.  Segments are not
        counted off: their lengths are data.
        """
        product = 2 * self.batch * self.heads * self.query_length * self.key_length * self.head_dim
        if self.causal and not self.offset:
            product //= 2
        return product * (5 if backward else 2)

    def bytes(self, *, backward: bool = False) -> int:
        """Bytes that must be read and written once each: queries, keys, values and output, and their gradients."""
        item = jnp.dtype(self.dtype).itemsize
        queries = self.batch * self.query_length * self.heads * self.head_dim
        keys = self.batch * self.key_length * self.kv_heads * self.head_dim
        log_sums = 4 * self.batch * self.query_length * self.heads
        if backward:  # reads q, k, v, out and its gradient; writes three gradients
            return item * (4 * queries + 4 * keys) + log_sums
        return item * (2 * queries + 2 * keys) + log_sums


class Implementation(Protocol):
    """One way to compute attention."""

    @property
    def name(self) -> str:
        """As the table has it."""
        ...

    def lacks(self, task: AttentionTask) -> str | None:
        """Why it cannot serve the task; ``None`` if it can."""
        ...

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]: ...
