"""Gradients of our TPU flash attention: one kernel for those of queries, one for those of keys and values.

Both compute the weights again from the scores and the log-sums.  The second walks over all query heads of a group, so
that the gradients of grouped keys and values are summed where they are and never repeated.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.pallas_blocks import (
    Blocks,
    Visits,
    in_hbm,
    pad_length,
    product,
    product_with_transpose,
)
from mammoth_jax.ops.attention.task import AttentionMask


def attention_gradients(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b t k e"],
    value: Float[Array, "b t k e"],
    mask: AttentionMask,
    out: Float[Array, "b s h e"],
    log_sum: Float[Array, "b h 1 s"],
    gradient: Float[Array, "b s h e"],
    scale: float,
    interpret: bool,
) -> tuple[Float[Array, "b s h e"], Float[Array, "b t k e"], Float[Array, "b t k e"]]:
    """Gradients of queries, keys and values."""
    # The soft-max's own gradient needs, a query, the product of the output with its gradient (Dao 2023, equation 4).
    overlap = jnp.einsum("bshe,bshe->bhs", out, gradient, preferred_element_type=jnp.float32)[:, :, None]
    by_query = (query.transpose(0, 2, 3, 1), gradient.transpose(0, 2, 3, 1), log_sum, overlap)
    by_key = (key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3))
    rest = (query, key, mask, scale, interpret)
    to_query = _query_gradient(by_query, by_key, *rest)
    to_key, to_value = _key_gradient(by_query, by_key, *rest)
    return to_query.transpose(0, 3, 1, 2), to_key.transpose(0, 2, 1, 3), to_value.transpose(0, 2, 1, 3)


def _query_gradient(
    by_query: tuple[Array, ...],
    by_key: tuple[Array, ...],
    query: Array,
    key: Array,
    mask: AttentionMask,
    scale: float,
    interpret: bool,
) -> Float[Array, "b h e s"]:
    (b, s, h, e), (t, kv_heads) = query.shape, key.shape[1:3]
    blocks = Blocks.fitting("query_gradient", s, t)
    visits = Visits(mask, b, s, t, blocks)
    group = h // kv_heads
    by_query = tuple(pad_length(x, 3, blocks.query) for x in by_query)
    by_key = tuple(pad_length(x, 2, blocks.key) for x in by_key)
    transposed_keys = pad_length(key.transpose(0, 2, 3, 1), 3, blocks.key)

    def query_at(b, h, i, j, *scalars):
        return b, h, 0, i

    def key_at(b, h, i, j, *scalars):
        return b, h // group, visits.inner(scalars, b, i, j), 0

    def transposed_key_at(b, h, i, j, *scalars):
        return b, h // group, 0, visits.inner(scalars, b, i, j)

    queries = pl.BlockSpec((None, None, e, blocks.query), query_at)
    rows = pl.BlockSpec((None, None, 1, blocks.query), query_at)
    keys = pl.BlockSpec((None, None, blocks.key, e), key_at)
    gradient = pl.pallas_call(
        functools.partial(_query_gradient_kernel, visits=visits, scale=scale),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(visits.scalars),
            grid=(b, h, visits.query_blocks, visits.key_blocks),
            in_specs=[
                queries,
                queries,
                rows,
                rows,
                keys,
                keys,
                pl.BlockSpec((None, None, e, blocks.key), transposed_key_at),
                *visits.segment_specs(
                    lambda b, h, i, j, *scalars: (b, i),
                    lambda b, h, i, j, *scalars: (b, visits.inner(scalars, b, i, j)),
                ),
            ],
            out_specs=queries,
            scratch_shapes=[pltpu.VMEM((e, blocks.query), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(by_query[0].shape, query.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        cost_estimate=visits.cost(query, key, products=3),
        name="attention_query_gradient",
        interpret=interpret,
    )(*visits.scalars, *in_hbm([*by_query, *by_key, transposed_keys, *visits.segments], interpret))
    return gradient[..., :s]


def _query_gradient_kernel(*refs: Any, visits: Visits, scale: float) -> None:
    scalars, refs = refs[: len(visits.scalars)], refs[len(visits.scalars) :]
    query, gradient, log_sum, overlap, key, value, transposed_key, *segments, out, sums = refs
    b, outer, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(step == 0)
    def _():
        sums[...] = jnp.zeros_like(sums)

    def body(i: Any, j: Any, masked: bool) -> None:
        scores = visits.scores(scalars, b, i, j, query[...], key[...], segments, scale, masked)
        weights = jnp.exp(scores - log_sum[...])
        error = weights * (product(value[...], gradient[...]) - overlap[...])
        sums[...] += product(transposed_key[...], error.astype(key.dtype))

    visits.visit(scalars, b, outer, step, body)

    @pl.when(step == visits.inner_blocks - 1)
    def _():
        out[...] = (sums[...] * scale).astype(out.dtype)


def _key_gradient(
    by_query: tuple[Array, ...],
    by_key: tuple[Array, ...],
    query: Array,
    key: Array,
    mask: AttentionMask,
    scale: float,
    interpret: bool,
) -> tuple[Float[Array, "b k t e"], Float[Array, "b k t e"]]:
    (b, s, h, e), (t, kv_heads) = query.shape, key.shape[1:3]
    blocks = Blocks.fitting("key_gradient", s, t)
    visits = Visits(mask, b, s, t, blocks, outer="key")
    group = h // kv_heads
    by_query = tuple(pad_length(x, 3, blocks.query) for x in by_query)
    by_key = tuple(pad_length(x, 2, blocks.key) for x in by_key)

    def query_at(b, k, j, g, i, *scalars):
        return b, k * group + g, 0, visits.inner(scalars, b, j, i)

    def key_at(b, k, j, g, i, *scalars):
        return b, k, j, 0

    queries = pl.BlockSpec((None, None, e, blocks.query), query_at)
    rows = pl.BlockSpec((None, None, 1, blocks.query), query_at)
    keys = pl.BlockSpec((None, None, blocks.key, e), key_at)
    shape = jax.ShapeDtypeStruct(by_key[0].shape, key.dtype)
    gradients = pl.pallas_call(
        functools.partial(_key_gradient_kernel, visits=visits, scale=scale, group=group),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(visits.scalars),
            grid=(b, kv_heads, visits.key_blocks, group, visits.query_blocks),
            in_specs=[
                queries,
                queries,
                rows,
                rows,
                keys,
                keys,
                *visits.segment_specs(
                    lambda b, k, j, g, i, *scalars: (b, visits.inner(scalars, b, j, i)),
                    lambda b, k, j, g, i, *scalars: (b, j),
                ),
            ],
            out_specs=[keys, keys],
            scratch_shapes=[pltpu.VMEM((blocks.key, e), jnp.float32)] * 2,
        ),
        out_shape=[shape, shape],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=visits.cost(query, key, products=4),
        name="attention_key_gradient",
        interpret=interpret,
    )(*visits.scalars, *in_hbm([*by_query, *by_key, *visits.segments], interpret))
    return gradients[0][:, :, :t], gradients[1][:, :, :t]


def _key_gradient_kernel(*refs: Any, visits: Visits, scale: float, group: int) -> None:
    scalars, refs = refs[: len(visits.scalars)], refs[len(visits.scalars) :]
    query, gradient, log_sum, overlap, key, value, *segments, to_key, to_value, key_sums, value_sums = refs
    b, outer, g, step = (pl.program_id(axis) for axis in (0, 2, 3, 4))

    @pl.when((g == 0) & (step == 0))
    def _():
        key_sums[...] = jnp.zeros_like(key_sums)
        value_sums[...] = jnp.zeros_like(value_sums)

    def body(i: Any, j: Any, masked: bool) -> None:
        scores = visits.scores(scalars, b, i, j, query[...], key[...], segments, scale, masked)
        weights = jnp.exp(scores - log_sum[...])
        value_sums[...] += product_with_transpose(weights.astype(gradient.dtype), gradient[...])
        error = weights * (product(value[...], gradient[...]) - overlap[...])
        key_sums[...] += product_with_transpose(error.astype(query.dtype), query[...])

    visits.visit(scalars, b, outer, step, body)

    @pl.when((g == group - 1) & (step == visits.inner_blocks - 1))
    def _():
        to_key[...] = (key_sums[...] * scale).astype(to_key.dtype)
        to_value[...] = value_sums[...].astype(to_value.dtype)
