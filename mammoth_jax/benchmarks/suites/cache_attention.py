"""The attention of one decoding step: a new token a row over the cache of all layers."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.benchmarks.measurement import Measurement, Meter, Work
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.models.backbone.cache import CacheFormat
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.costs import Cost, entry_bytes
from mammoth_jax.ops.attention import CacheView, decode_attention
from mammoth_jax.ops.attention.cache_entries import Entries, to_int8
from mammoth_jax.ops.attention.decode import choose_decode_attention
from mammoth_jax.pipelines.buckets import token_bucket


def over_cache(
    config: DecoderConfig, rows: int, tokens: int, meter: Meter, **facts: Any
) -> Iterator[Measurement]:
    """A case with the cache in the run's number format and one in int8; ``tokens`` is what the longest row holds."""
    dtype = jnp.dtype(meter.roofline.dtype)
    start, length = slots(rows, tokens)
    query, new_key, new_value = (
        jax.random.normal(jax.random.key(i), (rows, 1, heads, config.head_dim), dtype)
        for i, heads in enumerate((config.num_heads, config.num_kv_heads, config.num_kv_heads))
    )
    shape = (config.num_layers, rows, config.num_kv_heads, token_bucket(tokens + 1), config.head_dim)
    drawn: tuple[Entries, Entries] = (
        jax.random.normal(jax.random.key(3), shape, dtype),
        jax.random.normal(jax.random.key(4), shape, dtype),
    )
    formats: tuple[CacheFormat, ...] = ("model", "int8")
    for held in formats:
        keys, values = (
            drawn if held == "model" else jax.jit(lambda entries: tuple(map(to_int8, entries)))(drawn)
        )
        view = CacheView(keys, values, jnp.asarray(0), start, length)
        cost = cache_cost(config, np.asarray(length - start), dtype.itemsize, held)
        measured = meter.measure(
            "over a cache" if held == "model" else "over an int8 cache",
            functools.partial(_step, query, new_key, new_value, view),
            Work(cost, rows, "tokens"),
            **facts,
            implementation=type(choose_decode_attention(view, 1)).__name__,
            layers=config.num_layers,
            slots=shape[3],
            used=(length - start).tolist(),
        )
        yield measured.with_facts(copy_fraction=meter.roofline.copy_seconds(cost) / measured.timing.median)


def slots(rows: int, tokens: int) -> tuple[Int[Array, " b"], Int[Array, " b"]]:
    """Where each row's tokens start and end: the first holds all ``tokens``, each later one begins a bit later and
    ends a bit earlier, down to about a half of them."""
    step = tokens // (4 * rows)
    row = np.arange(rows, dtype=np.int32)
    return jnp.asarray(row * step), jnp.asarray(tokens - row * step)


def cache_cost(config: DecoderConfig, used: Int[np.ndarray, " b"], item: int, held: CacheFormat) -> Cost:
    """Keys and values of the ``used`` slots once, queries, new entries and output once, in every layer."""
    rows, seen = len(used), int(used.sum())
    entries = 2 * seen * config.num_kv_heads * entry_bytes(config.head_dim, item, held)
    new = 2 * rows * (config.num_heads + config.num_kv_heads) * config.head_dim * item
    flops = 4 * (seen + rows) * config.num_heads * config.head_dim
    return Cost(config.num_layers * flops, config.num_layers * (entries + new))


@jax.jit
def _step(
    query: Float[Array, "b 1 h e"],
    new_key: Float[Array, "b 1 k e"],
    new_value: Float[Array, "b 1 k e"],
    view: CacheView,
) -> Float[Array, "l b 1 h e"]:
    def layer(_: None, index: Int[Array, ""]) -> tuple[None, Array]:
        at = CacheView(view.keys, view.values, index, view.start, view.length)
        return None, decode_attention(query, new_key, new_value, at)

    return jax.lax.scan(layer, None, jnp.arange(view.keys.shape[0]))[1]
