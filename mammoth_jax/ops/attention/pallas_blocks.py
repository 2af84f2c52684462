"""What our TPU attention kernels share: block sizes, which blocks are visited, and masked scores."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.block_ranges import fit_block, needed_blocks, pad_mask, padded_length, spans
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask

MASKED = (
    -2e38
)  # finite, so that differences stay numbers, and so low that its exponential is 0 beside any maximum

LANES = 128

Kernel = Literal["forward", "query_gradient", "key_gradient"]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Queries and keys of one step of a kernel."""

    query: int
    key: int

    @staticmethod
    def fitting(kernel: Kernel, query_length: int, key_length: int) -> "Blocks":
        """The table's blocks, no longer than the arrays need."""
        usual = BLOCKS[kernel]
        return Blocks(fit_block(usual.query, query_length, LANES), fit_block(usual.key, key_length, LANES))


# Cycles by the compiler's final schedule for 512 x 512 scores (head size 128, bfloat16, nothing masked).  Forward: 1818
# on v5e and 1286 on v6e with blocks of 512 x 512, 1581 and 963 with these.  On v5e the gradients of queries take 1848
# and 1577, those of keys and values 2412 and 2221.  Splash attention with blocks of 512 x 512 takes 1998, 1750, 2367.
# 1024 x 1024 backward gains more on v6e (820 and 1210), but holds four such arrays in float32.
BLOCKS: dict[Kernel, Blocks] = {
    "forward": Blocks(1024, 1024),
    "query_gradient": Blocks(1024, 512),
    "key_gradient": Blocks(1024, 512),
}


class Visits:
    """Which inner blocks each outer block visits, for the kernel's index maps and for its body.

    ``outer`` says whether a kernel holds a block of queries and walks over keys, or the other way round.  ``scalars``
    are prefetched: first and one past the last inner block of every outer block, each row's query offset, and the
    segment of every block that holds only one.
    """

    def __init__(
        self,
        mask: AttentionMask,
        batch: int,
        query_length: int,
        key_length: int,
        blocks: Blocks,
        outer: Literal["query", "key"] = "query",
    ):
        self.blocks, self.causal, self.outer = blocks, mask.causal, outer
        self.query_blocks = padded_length(query_length, blocks.query) // blocks.query
        self.key_blocks = padded_length(key_length, blocks.key) // blocks.key
        self.inner_blocks = self.key_blocks if outer == "query" else self.query_blocks
        self.outer_blocks = self.query_blocks if outer == "query" else self.key_blocks
        mask = pad_mask(mask, batch, query_length, key_length, blocks.query, blocks.key)
        needed = needed_blocks(mask, batch, self.query_blocks, self.key_blocks, blocks.query, blocks.key)
        first, stop = spans(needed if outer == "query" else needed.swapaxes(1, 2))
        offset = jnp.zeros(batch, jnp.int32) if mask.query_offset is None else mask.query_offset
        self.scalars = [first.reshape(-1), stop.reshape(-1), offset.astype(jnp.int32)]
        self.segments: tuple[Array, ...] = ()
        if mask.query_segments is not None and mask.key_segments is not None:
            keys = jnp.where(mask.key_segments > 0, mask.key_segments, -1)  # padding never equals padding
            self.segments = (mask.query_segments[:, None, :], keys[:, :, None])
            self.scalars.append(_only_segment(mask.query_segments, self.query_blocks, 0))
            self.scalars.append(_only_segment(keys, self.key_blocks, -1))

    def inner(self, scalars: Sequence[Any], b: Any, outer: Any, step: Any) -> Any:
        """The inner block of a step, as an index map wants it: steps past the last stay there, and read nothing."""
        first, stop = (scalar[b * self.outer_blocks + outer] for scalar in scalars[:2])
        return jnp.minimum(first + step, jnp.maximum(stop - 1, 0))

    def segment_specs(self, query_at: Callable[..., Any], key_at: Callable[..., Any]) -> list[pl.BlockSpec]:
        """Specifications of the segments; the functions map grid indices to a row and a block."""
        if not self.segments:
            return []

        def query_index(*grid: Any):
            b, i = query_at(*grid)
            return b, 0, i

        def key_index(*grid: Any):
            return *key_at(*grid), 0

        return [
            pl.BlockSpec((None, 1, self.blocks.query), query_index),
            pl.BlockSpec((None, self.blocks.key, 1), key_index),
        ]

    def visit(
        self, scalars: Sequence[Any], b: Any, outer: Any, step: Any, body: Callable[[Any, Any, bool], None]
    ) -> None:
        """Calls ``body(query_block, key_block, masked)`` if the step has a block to visit."""
        place = b * self.outer_blocks + outer
        inner = scalars[0][place] + step
        i, j = (outer, inner) if self.outer == "query" else (inner, outer)
        within = inner < scalars[1][place]
        seen_wholly = jnp.bool_(True)
        if self.causal:
            first_query = scalars[2][b] + i * self.blocks.query
            seen_wholly = first_query >= (j + 1) * self.blocks.key - 1
        if self.segments:
            # Steps that are out of range may point past the last block; they read an entry that does not matter.
            queries = scalars[3][b * self.query_blocks + jnp.minimum(i, self.query_blocks - 1)]
            keys = scalars[4][b * self.key_blocks + jnp.minimum(j, self.key_blocks - 1)]
            seen_wholly = seen_wholly & (queries == keys)

        @pl.when(within & seen_wholly)
        def _():
            body(i, j, False)

        if self.causal or self.segments:

            @pl.when(within & ~seen_wholly)
            def _():
                body(i, j, True)

    def scores(
        self,
        scalars: Sequence[Any],
        b: Any,
        i: Any,
        j: Any,
        query: Float[Array, "e queries"],
        key: Float[Array, "keys e"],
        segments: Sequence[Any],
        scale: float,
        masked: bool,
    ) -> Float[Array, "keys queries"]:
        """Scaled scores of query block ``i`` and key block ``j``."""
        scores = product(key, query) * scale
        if not masked:
            return scores
        seen = None
        if segments:
            seen = segments[1][...] == segments[0][...]
        if self.causal:
            keys = j * self.blocks.key + jax.lax.broadcasted_iota(jnp.int32, (self.blocks.key, 1), 0)
            queries = jax.lax.broadcasted_iota(jnp.int32, (1, self.blocks.query), 1)
            before = keys <= queries + (scalars[2][b] + i * self.blocks.query)
            seen = before if seen is None else seen & before
        return scores if seen is None else jnp.where(seen, scores, MASKED)

    def cost(self, query: Array, key: Array, products: int) -> pl.CostEstimate:
        """Work of a kernel with so many matrix products for XLA's scheduler, not counting blocks that are skipped."""
        (b, s, h, e), (t, k) = query.shape, key.shape[1:3]
        task = AttentionTask("tpu", b, s, t, h, k, e, query.dtype.name, self.causal)
        return pl.CostEstimate(
            flops=task.flops() * products // 2,
            transcendentals=task.score_bytes // (8 if self.causal else 4),
            bytes_accessed=task.bytes(backward=products > 2),
        )


def _only_segment(segments: Int[Array, "b length"], blocks: int, none: int) -> Int[Array, " n"]:
    """The segment of each block that holds only one, else ``none``."""
    split = segments.reshape(segments.shape[0], blocks, -1)
    first = split[:, :, 0]
    return jnp.where(jnp.all(split == first[:, :, None], axis=-1), first, none).reshape(-1)


def pad_length(x: Array, axis: int, block: int) -> Array:
    """Zeros up to whole blocks."""
    width = [(0, 0)] * x.ndim
    width[axis] = (0, padded_length(x.shape[axis], block) - x.shape[axis])
    return jnp.pad(x, width)


def in_hbm(arrays: Sequence[Array], interpret: bool) -> list[Array]:
    """Keeps what a kernel reads out of VMEM, where XLA would else put as much as fits, whatever else is there.

    The kernels are bound by arithmetic, and the memory that a program needs then grows with its lengths alone.
    """
    return list(arrays) if interpret else [pltpu.with_memory_space_constraint(x, pltpu.HBM) for x in arrays]


def product(left: Float[Array, "m k"], right: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """A matrix product summed in float32."""
    return jax.lax.dot_general(left, right, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def product_with_transpose(left: Float[Array, "m k"], right: Float[Array, "n k"]) -> Float[Array, "m n"]:
    """``left @ right.T`` summed in float32."""
    return jax.lax.dot_general(left, right, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
