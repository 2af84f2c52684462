"""Flash attention for TPU in Pallas: our own kernels, forward and backward.

The online soft-max of Milakov and Gimelshein 2018 in the order of Dao 2023 ("FlashAttention-2").  Scores are held
transposed, ``[keys, queries]``: a query's maximum and sum are then one row of lanes, reductions run over sublanes, and
every matrix product is a plain one or one with a transposed right side, never with a transposed left side, for which
the arrays come in the order that each kernel wants (``[e, length]`` or ``[length, e]``).  Head sizes need not be
multiples of 128: with the length in the lanes a head of 72 takes 80 rows, not 128.

Which blocks of keys a block of queries visits is data: first and last block come as prefetched scalars, from causality,
the queries' offset, the segments and the padding alike.  Other blocks are neither read nor computed, and blocks that
are seen wholly are not masked.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.pallas_blocks import Blocks, Visits, in_hbm, pad_length, product
from mammoth_jax.ops.attention.pallas_tpu_backward import attention_gradients
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask

LOWEST = (
    -1e30
)  # below every score and far above a masked score, so that a masked weight is 0 whatever was seen before


@dataclasses.dataclass(frozen=True)
class PallasTPU:
    """The object of the table.  ``interpret`` runs the kernels step by step on any platform, for tests."""

    interpret: bool = False
    name = "pallas_tpu"

    def lacks(self, task: AttentionTask) -> str | None:
        """Why the kernels cannot serve."""
        if task.platform != "tpu" and not self.interpret:
            return f"needs a TPU, not {task.platform}"
        if task.dtype not in ("bfloat16", "float32"):
            return f"has no {task.dtype}"
        if task.head_dim % 8 or not 16 <= task.head_dim <= 128:
            return f"has no head size {task.head_dim} (multiples of 8 from 16 to 128)"
        return None

    def __call__(
        self,
        query: Float[Array, "b s h e"],
        key: Float[Array, "b t k e"],
        value: Float[Array, "b t k e"],
        mask: AttentionMask,
        scale: float,
    ) -> Float[Array, "b s h e"]:
        return _flash(query, key, value, mask, scale, self.interpret)


PALLAS_TPU = PallasTPU()


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _flash(
    query: Array, key: Array, value: Array, mask: AttentionMask, scale: float, interpret: bool
) -> Array:
    return _forward(query, key, value, mask, scale, interpret)[0]


def _forward(query, key, value, mask, scale, interpret):
    out, log_sum = _run_forward(query, key, value, mask, scale, interpret)
    return out, (query, key, value, mask, out, log_sum)


def _backward(scale, interpret, saved, gradient):
    query, key, value, mask, out, log_sum = saved
    return *attention_gradients(query, key, value, mask, out, log_sum, gradient, scale, interpret), None


_flash.defvjp(_forward, _backward)


def _run_forward(
    query: Array, key: Array, value: Array, mask: AttentionMask, scale: float, interpret: bool
) -> tuple[Float[Array, "b s h e"], Float[Array, "b h 1 s"]]:
    """The output, and the logarithm of every query's sum of exponentials (0 where it sees nothing)."""
    (b, s, h, e), (t, kv_heads) = query.shape, key.shape[1:3]
    blocks = Blocks.fitting("forward", s, t)
    visits = Visits(mask, b, s, t, blocks)
    group = h // kv_heads
    queries = pad_length(query.transpose(0, 2, 3, 1), 3, blocks.query)
    keys = pad_length(key.transpose(0, 2, 1, 3), 2, blocks.key)
    values = pad_length(value.transpose(0, 2, 3, 1), 3, blocks.key)
    padded = queries.shape[3]

    def query_at(b, h, i, j, *scalars):
        return b, h, 0, i

    def key_at(b, h, i, j, *scalars):
        return b, h // group, visits.inner(scalars, b, i, j), 0

    def value_at(b, h, i, j, *scalars):
        return b, h // group, 0, visits.inner(scalars, b, i, j)

    out, log_sum = pl.pallas_call(
        functools.partial(_forward_kernel, visits=visits, scale=scale),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(visits.scalars),
            grid=(b, h, visits.query_blocks, visits.key_blocks),
            in_specs=[
                pl.BlockSpec((None, None, e, blocks.query), query_at),
                pl.BlockSpec((None, None, blocks.key, e), key_at),
                pl.BlockSpec((None, None, e, blocks.key), value_at),
                *visits.segment_specs(
                    lambda b, h, i, j, *scalars: (b, i),
                    lambda b, h, i, j, *scalars: (b, visits.inner(scalars, b, i, j)),
                ),
            ],
            out_specs=[
                pl.BlockSpec((None, None, e, blocks.query), query_at),
                pl.BlockSpec((None, None, 1, blocks.query), query_at),
            ],
            scratch_shapes=[
                pltpu.VMEM((1, blocks.query), jnp.float32),
                pltpu.VMEM((1, blocks.query), jnp.float32),
                pltpu.VMEM((e, blocks.query), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((b, h, e, padded), query.dtype),
            jax.ShapeDtypeStruct((b, h, 1, padded), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        cost_estimate=visits.cost(query, key, products=2),
        name="attention_forward",
        interpret=interpret,
    )(*visits.scalars, *in_hbm([queries, keys, values, *visits.segments], interpret))
    return out[..., :s].transpose(0, 3, 1, 2), log_sum[..., :s]


def _forward_kernel(*refs: Any, visits: Visits, scale: float) -> None:
    scalars, refs = refs[: len(visits.scalars)], refs[len(visits.scalars) :]
    query, key, value, *segments, out, log_sum, top, total, sums = refs
    b, outer, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(step == 0)
    def _():
        top[...] = jnp.full_like(top, LOWEST)
        total[...] = jnp.zeros_like(total)
        sums[...] = jnp.zeros_like(sums)

    def body(i: Any, j: Any, masked: bool) -> None:
        scores = visits.scores(scalars, b, i, j, query[...], key[...], segments, scale, masked)
        highest = jnp.maximum(top[...], jnp.max(scores, axis=0, keepdims=True))
        weights = jnp.exp(scores - highest)
        keep = jnp.exp(top[...] - highest)
        top[...] = highest
        total[...] = total[...] * keep + jnp.sum(weights, axis=0, keepdims=True)
        sums[...] = sums[...] * keep + product(value[...], weights.astype(value.dtype))

    visits.visit(scalars, b, outer, step, body)

    @pl.when(step == visits.inner_blocks - 1)
    def _():
        seen = total[...] > 0
        safe = jnp.where(seen, total[...], 1.0)
        out[...] = (sums[...] / safe).astype(out.dtype)
        log_sum[...] = jnp.where(seen, top[...] + jnp.log(safe), 0.0)
