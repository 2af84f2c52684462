"""Decode attention on TPU: streams each row's used slots of one layer out of the whole cache, once.

The grid is rows by blocks of slots, all key/value heads in a block.  Layer, start and length come by scalar prefetch:
blocks outside a row's valid slots map to the nearest one inside, so that the pipeline fetches nothing for them, and
are not computed.  The running soft-max is in float32.  On a mesh each device has its rows and heads.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.cache_entries import Entries, Int8Entries
from mammoth_jax.ops.attention.cache_mesh import on_each_device
from mammoth_jax.ops.attention.decode_xla import NOTHING, CacheView, new_scores

LANES = 128
SUBLANES = 16
"""Queries of a head are padded to this many rows: a tile of bfloat16."""
BLOCK_BYTES = 2**20
"""Of keys in a block: long enough that a fetch hides the cost of a grid step, short enough for two in flight."""


@dataclasses.dataclass(frozen=True)
class DecodePallasTPU:
    """The kernel as an implementation of decode attention.

    ``block`` is a number of slots (a multiple of 128); by default from the sizes.  ``interpret`` runs it anywhere.
    """

    block: int | None = None
    interpret: bool = False

    def __call__(
        self,
        query: Float[Array, "b k m e"],
        new_key: Float[Array, "b k s e"],
        new_value: Float[Array, "b k s e"],
        cache: CacheView,
        scale: float,
    ) -> Float[Array, "b k m e"]:
        run = functools.partial(self._on_one_device, scale=scale)

        def specs(heads: PartitionSpec) -> tuple:
            stack, row = PartitionSpec(None, *heads), PartitionSpec(heads[0])
            view = CacheView(stack, stack, PartitionSpec(), row, row)  # type: ignore[arg-type]
            return (heads, heads, heads, view), heads

        return on_each_device(run, query.shape[:2], specs)(query, new_key, new_value, cache)

    def _on_one_device(
        self,
        query: Float[Array, "b k m e"],
        new_key: Float[Array, "b k s e"],
        new_value: Float[Array, "b k s e"],
        cache: CacheView,
        scale: float,
    ) -> Float[Array, "b k m e"]:
        m = query.shape[2]
        block = min(self.block or slots_of_block(cache.keys), -(-cache.capacity // LANES) * LANES)
        padding = -m % SUBLANES
        padded = jnp.pad(query, ((0, 0), (0, 0), (0, padding), (0, 0)))
        mixed, top, total = _over_cache(padded, cache, scale, block, self.interpret)
        mixed, top, total = mixed[:, :, :m], top[:, :, :m, :1], total[:, :, :m, :1]
        scores = new_scores(query, new_key, scale)
        highest = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
        weights, kept = jnp.exp(scores - highest), jnp.exp(top - highest)
        mixed = mixed * kept + jnp.einsum("bkms,bkse->bkme", weights, new_value.astype(jnp.float32))
        return mixed / (total * kept + jnp.sum(weights, axis=-1, keepdims=True))


def slots_of_block(keys: Entries) -> int:
    """A power of two of slots whose keys are about :data:`BLOCK_BYTES`."""
    _, _, heads, _, width = keys.shape
    wanted = BLOCK_BYTES // (heads * width * keys.dtype.itemsize)
    return min(max(2 ** int(math.log2(max(wanted, 1))), LANES), 2048)


def _over_cache(
    query: Float[Array, "b k m e"], cache: CacheView, scale: float, block: int, interpret: bool
) -> tuple[Float[Array, "b k m e"], Float[Array, "b k m lanes"], Float[Array, "b k m lanes"]]:
    """The part over the cache, unnormalised: (weighted values, highest score, sum of weights), float32."""
    b, k, m, e = query.shape
    blocks = -(-cache.capacity // block)

    def used(row, number, layer, start, length):
        last = jnp.maximum(length[row] - 1, 0) // block
        return jnp.clip(number, jnp.minimum(start[row] // block, last), last)

    def entries_at(row, number, layer, start, length):
        return layer[0], row, 0, used(row, number, layer, start, length), 0

    def scales_at(row, number, layer, start, length):
        return layer[0], row, 0, used(row, number, layer, start, length)

    def row_at(row, number, *_):
        return row, 0, 0, 0

    entry = pl.BlockSpec((1, 1, k, block, e), entries_at)
    per_row: Callable = lambda width: pl.BlockSpec((1, k, m, width), row_at)  # noqa: E731
    specs, arrays = [per_row(e)], [query]
    quantized = isinstance(cache.keys, Int8Entries)
    for entries in (cache.keys, cache.values):
        if isinstance(entries, Int8Entries):
            specs += [entry, pl.BlockSpec((1, 1, k, block), scales_at)]
            arrays += [entries.codes, entries.scale]
        else:
            specs.append(entry)
            arrays.append(entries)
    return pl.pallas_call(
        functools.partial(_kernel, scale=scale, block=block, capacity=cache.capacity, quantized=quantized),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(b, blocks),
            in_specs=specs,
            out_specs=[per_row(e), per_row(LANES), per_row(LANES)],
        ),
        out_shape=[jax.ShapeDtypeStruct((b, k, m, width), jnp.float32) for width in (e, LANES, LANES)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="decode_attention",
    )(cache.layer.reshape(1).astype(jnp.int32), cache.start, cache.length, *arrays)


def _kernel(layer_ref, start_ref, length_ref, query_ref, *refs, scale, block, capacity, quantized) -> None:
    if quantized:
        key_ref, key_scale_ref, value_ref, value_scale_ref, mixed_ref, top_ref, total_ref = refs
    else:
        key_ref, value_ref, mixed_ref, top_ref, total_ref = refs
        key_scale_ref = value_scale_ref = None
    row, number = pl.program_id(0), pl.program_id(1)
    first = number * block
    start, length = start_ref[row], length_ref[row]

    @pl.when(number == 0)
    def _():
        mixed_ref[...] = jnp.zeros_like(mixed_ref)
        top_ref[...] = jnp.full_like(top_ref, NOTHING)
        total_ref[...] = jnp.zeros_like(total_ref)

    @pl.when((first < length) & (first + block > start))
    def _():
        slot = first + jax.lax.broadcasted_iota(jnp.int32, (1, block), 1)
        valid = (slot >= start) & (slot < length)
        for head in range(query_ref.shape[1]):
            query = query_ref[0, head]
            scores = jax.lax.dot_general(
                query,
                key_ref[0, 0, head].astype(query.dtype),
                (((1,), (1,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            if key_scale_ref is not None:
                scores = scores * key_scale_ref[0, 0, head][None]
            scores = jnp.where(valid, scores * scale, NOTHING)
            top = top_ref[0, head][:, :1]
            higher = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            weights = jnp.where(valid, jnp.exp(scores - higher), 0.0)
            kept = jnp.exp(top - higher)
            total = total_ref[0, head] * kept + jnp.sum(weights, axis=-1, keepdims=True)
            value = value_ref[0, 0, head]
            if value_scale_ref is not None:
                weights = weights * value_scale_ref[0, 0, head][None]
            if capacity % block:  # what the last block holds beyond the cache may be anything
                inside = first + jax.lax.broadcasted_iota(jnp.int32, (block, 1), 0) < capacity
                value = jnp.where(inside, value, jnp.zeros_like(value))
                weights = jnp.where(valid, weights, 0.0)
            mixed = jax.lax.dot_general(
                weights.astype(query.dtype),
                value.astype(query.dtype),
                (((1,), (0,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            mixed_ref[0, head] = mixed_ref[0, head] * kept + mixed
            top_ref[0, head] = jnp.broadcast_to(higher, top_ref.shape[2:])
            total_ref[0, head] = total
