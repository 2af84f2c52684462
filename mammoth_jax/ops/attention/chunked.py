"""Attention in blocks of queries and keys, by plain XLA: memory is linear in the lengths, on every platform.

Forward: the online soft-max of Milakov and Gimelshein 2018 over blocks of keys, for one block of queries after another.
Backward: Dao 2023 ("FlashAttention-2", algorithm 2): only the output and the log-sum of every query are kept, and the
weights of a pair of blocks are computed again.  Pairs of blocks of which no query sees a key are not visited.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Float
from mammoth_jax.ops.attention.block_ranges import fit_block, needed_blocks, pad_mask, padded_length, spans
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask

# The scores of one pair of blocks, over all rows and heads, stay below this (about three such arrays are alive).
SCORE_BYTES = 64 * 2**20

_LOWEST = -1e30  # below every score, and finite so that differences stay numbers


@dataclasses.dataclass(frozen=True)
class Chunked:
    """The object of the table; blocks are at most so many queries and keys.

    ``product_dtype`` is the number format of the products' inputs, by default the one that is given.
    """

    query_block: int = 512
    key_block: int = 1024
    name: str = "chunked"
    product_dtype: str | None = None

    def lacks(self, task: AttentionTask) -> str | None:
        """Nothing."""
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        dtype = query.dtype
        if self.product_dtype is not None:
            query = query.astype(self.product_dtype)
            key, value = key.astype(self.product_dtype), value.astype(self.product_dtype)
        mixed = _chunked(query, key, value, mask, scale, self._fitting_blocks(query, key))
        return jnp.asarray(mixed, dtype)

    def _fitting_blocks(
        self, query: Float[Array, "b s h e"], key: Float[Array, "b t k e"]
    ) -> tuple[int, int]:
        """The usual blocks, halved while their scores take too much, and no longer than the arrays."""
        rows = query.shape[0] * query.shape[2]
        query_block, key_block = self.query_block, self.key_block
        while 4 * rows * query_block * key_block > SCORE_BYTES and query_block > 128:
            query_block, key_block = query_block // 2, key_block // 2
        return fit_block(query_block, query.shape[1], 8), fit_block(key_block, key.shape[1], 8)


CHUNKED = Chunked()
# What stays in a core's caches; and of packed segments little else than what a query sees is visited.  Processors
# multiply bfloat16 by way of float32, which small products had better be given at once.
CACHE_SIZED = Chunked(64, 64, "cache_sized", "float32")


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    scale: float,
    blocks: tuple[int, int],
) -> jax.Array:
    return _forward(query, key, value, mask, scale, blocks)[0]


def _forward(query, key, value, mask, scale, blocks):
    work = _Blocks(query, key, mask, blocks)
    queries, keys, values = work.split_queries(query), work.split_keys(key), work.split_keys(value)

    def one_query_block(i: jax.Array, query_block: jax.Array):
        def one_key_block(j: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]):
            top, total, out = carry
            scores, seen = work.scores(query_block, keys[j], i, j, scale)
            new_top = jnp.maximum(top, jnp.max(jnp.where(seen, scores, _LOWEST), axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - new_top[..., None]), 0.0)
            keep = jnp.exp(top - new_top)
            total = total * keep + jnp.sum(weights, axis=-1)
            return new_top, total, out * keep[..., None] + work.dot("kgst,kte->kgse", weights, values[j])

        rows = query_block.shape[:-1]
        start = (
            jnp.full(rows, _LOWEST, jnp.float32),
            jnp.zeros(rows, jnp.float32),
            jnp.zeros((*rows, value.shape[-1]), jnp.float32),
        )
        top, total, out = jax.lax.fori_loop(work.first[i], work.stop[i], one_key_block, start)
        safe = jnp.maximum(total, 1e-30)
        log_sum = jnp.where(total > 0, top + jnp.log(safe), 0.0)
        return (out / safe[..., None]).astype(query.dtype), log_sum

    _, (out, log_sum) = jax.lax.scan(
        lambda _, x: (None, one_query_block(*x)), None, (jnp.arange(work.query_blocks), queries)
    )
    out = work.join_queries(out)
    return out, (query, key, value, mask, out, log_sum)


def _backward(scale, blocks, saved, gradient):
    query, key, value, mask, out, log_sum = saved
    work = _Blocks(query, key, mask, blocks)
    queries, keys, values = work.split_queries(query), work.split_keys(key), work.split_keys(value)
    gradients = work.split_queries(gradient)
    # The soft-max's own gradient needs, a query, the product of the output with its gradient (Dao 2023, equation 4).
    product = jnp.sum(out.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True)
    product = work.split_queries(product)[..., 0]

    def one_query_block(carry, x):
        i, query_block, gradient_block, log_sum_block, product_block = x

        def one_key_block(j, carry):
            query_gradient, key_gradient, value_gradient = carry
            scores, seen = work.scores(query_block, keys[j], i, j, scale)
            weights = jnp.where(seen, jnp.exp(scores - log_sum_block[..., None]), 0.0)
            value_step = work.dot("kgst,kgse->kte", weights, gradient_block)
            toward = work.dot("kgse,kte->kgst", gradient_block, values[j])
            error = weights * (toward - product_block[..., None]) * scale
            query_gradient = query_gradient + work.dot("kgst,kte->kgse", error, keys[j])
            key_step = work.dot("kgst,kgse->kte", error, query_block)
            return query_gradient, key_gradient.at[j].add(key_step), value_gradient.at[j].add(value_step)

        start = (jnp.zeros(query_block.shape, jnp.float32), *carry)
        query_gradient, *carry = jax.lax.fori_loop(work.first[i], work.stop[i], one_key_block, start)
        return tuple(carry), query_gradient.astype(query.dtype)

    zeros = (jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32))
    (key_gradient, value_gradient), query_gradient = jax.lax.scan(
        one_query_block, zeros, (jnp.arange(work.query_blocks), queries, gradients, log_sum, product)
    )
    return (
        work.join_queries(query_gradient),
        work.join_keys(key_gradient).astype(key.dtype),
        work.join_keys(value_gradient).astype(value.dtype),
        None,
    )


_chunked.defvjp(_forward, _backward)


class _Blocks:
    """Cuts arrays into blocks and computes the scores of a pair of them.

    Queries become ``[nq, b, k, g, block, e]`` and keys ``[nk, b, k, block, e]``: matrix products then run over whole
    rows of memory, and the heads of a group share their keys.
    """

    def __init__(self, query: jax.Array, key: jax.Array, mask: AttentionMask, blocks: tuple[int, int]):
        self.batch, self.length, self.heads = query.shape[:3]
        self.key_length, self.kv_heads = key.shape[1:3]
        self.query_block, self.key_block = blocks
        self.query_blocks = padded_length(self.length, self.query_block) // self.query_block
        self.key_blocks = padded_length(self.key_length, self.key_block) // self.key_block
        self.dtype = key.dtype
        self.mask = pad_mask(mask, self.batch, self.length, self.key_length, *blocks)
        needed = needed_blocks(self.mask, self.batch, self.query_blocks, self.key_blocks, *blocks)
        self.first, self.stop = spans(jnp.any(needed, axis=0))

    def split_queries(self, x: Float[Array, "b s h e"]) -> Float[Array, "nq b k g block e"]:
        n, k = self.query_blocks, self.kv_heads
        x = jnp.pad(x, ((0, 0), (0, n * self.query_block - self.length), (0, 0), (0, 0)))
        x = x.reshape(self.batch, n, self.query_block, k, self.heads // k, x.shape[-1])
        return x.transpose(1, 0, 3, 4, 2, 5)

    def join_queries(self, x: Float[Array, "nq b k g block e"]) -> Float[Array, "b s h e"]:
        x = x.transpose(1, 0, 4, 2, 3, 5)
        return x.reshape(self.batch, -1, self.heads, x.shape[-1])[:, : self.length]

    def split_keys(self, x: Float[Array, "b t k e"]) -> Float[Array, "nk b k block e"]:
        n = self.key_blocks
        x = jnp.pad(x, ((0, 0), (0, n * self.key_block - self.key_length), (0, 0), (0, 0)))
        x = x.reshape(self.batch, n, self.key_block, self.kv_heads, x.shape[-1])
        return x.transpose(1, 0, 3, 2, 4)

    def join_keys(self, x: Float[Array, "nk b k block e"]) -> Float[Array, "b t k e"]:
        x = x.transpose(1, 0, 3, 2, 4)
        return x.reshape(self.batch, -1, self.kv_heads, x.shape[-1])[:, : self.key_length]

    def dot(self, equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
        """A product over all rows in the keys' number format, summed in float32."""
        left, right, out = (f"b{part}" for part in equation.replace("->", ",").split(","))
        x, y = x.astype(self.dtype), y.astype(self.dtype)
        return jnp.einsum(f"{left},{right}->{out}", x, y, preferred_element_type=jnp.float32)

    def scores(
        self, query: jax.Array, key: jax.Array, i: jax.Array, j: jax.Array, scale: float
    ) -> tuple[Float[Array, "b k g s t"], Bool[Array, "b 1 1 s t"]]:
        """Scaled scores of query block ``i`` with key block ``j`` and which of them count."""
        scores = self.dot("kgse,kte->kgst", query, key) * scale
        query_start, key_start = i * self.query_block, j * self.key_block
        mask, seen = self.mask, jnp.ones((1, self.query_block, self.key_block), bool)
        if mask.query_segments is not None and mask.key_segments is not None:
            ours = jax.lax.dynamic_slice_in_dim(mask.query_segments, query_start, self.query_block, 1)
            theirs = jax.lax.dynamic_slice_in_dim(mask.key_segments, key_start, self.key_block, 1)
            seen = (ours[:, :, None] == theirs[:, None, :]) & (ours[:, :, None] > 0)
        if mask.causal:
            ours = query_start + jnp.arange(self.query_block)[None]
            if mask.query_offset is not None:
                ours = ours + mask.query_offset[:, None]
            seen = seen & (ours[:, :, None] >= key_start + jnp.arange(self.key_block))
        return scores, seen[:, None, None]
