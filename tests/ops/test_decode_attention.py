"""Attention over a cache: every implementation against the soft-max written out row by row."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.attention.cache_entries import to_int8
from mammoth_jax.ops.attention.cache_write_pallas_tpu import write_few_tokens
from mammoth_jax.ops.attention.cache_writes import write_tokens
from mammoth_jax.ops.attention.decode import decode_attention
from mammoth_jax.ops.attention.decode_pallas_tpu import DecodePallasTPU
from mammoth_jax.ops.attention.decode_xla import CacheView, DecodeAttention, UsedBlocks, WholeCache
from tests.cache_numbers import decode_entries

IMPLEMENTATIONS = {
    "whole": WholeCache(),
    "blocks": UsedBlocks(block=128),
    "pallas": DecodePallasTPU(block=128, interpret=True),
}
CAPACITY, LAYERS = 300, 2
START = np.array([0, 5, 140, 0])
LENGTH = np.array([0, 129, 256, 300])  # empty, one past a block, whole blocks, full
LAYER = 1


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a task: new tokens a row, heads and their width."""

    new: int
    heads: int
    kv_heads: int
    width: int


@functools.cache
def arrays(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Query, new key, new value, keys and values of all layers, large where no row may look."""
    random = np.random.default_rng(0)
    b = len(LENGTH)
    shapes = [(b, sizes.new, sizes.heads, sizes.width)] + 2 * [(b, sizes.new, sizes.kv_heads, sizes.width)]
    shapes += 2 * [(LAYERS, b, sizes.kv_heads, CAPACITY, sizes.width)]
    query, new_key, new_value, keys, values = (random.standard_normal(s, np.float32) for s in shapes)
    slot = np.arange(CAPACITY)
    unused = (slot < START[:, None]) | (slot >= LENGTH[:, None])
    for entries in (keys, values):
        entries[np.broadcast_to(unused[None, :, None], entries.shape[:4])] = 1e4
        entries[1 - LAYER] = 1e4
    return query, new_key, new_value, keys, values


def view(keys, values, length=LENGTH) -> CacheView:
    keys, values = jax.tree.map(jnp.asarray, (keys, values))
    return CacheView(keys, values, jnp.asarray(LAYER), jnp.asarray(START), jnp.asarray(length))


def written_out(query, new_key, new_value, keys, values) -> np.ndarray:
    """In float64, one query and head at a time."""
    out = np.zeros(query.shape)
    group = query.shape[2] // new_key.shape[2]
    for row, token, head in np.ndindex(query.shape[:3]):
        own, seen = head // group, slice(START[row], LENGTH[row])
        k = np.concatenate([keys[LAYER, row, own, seen], new_key[row, : token + 1, own]]).astype(np.float64)
        v = np.concatenate([values[LAYER, row, own, seen], new_value[row, : token + 1, own]])
        scores = k @ query[row, token, head] * query.shape[3] ** -0.5
        weights = np.exp(scores - scores.max())
        out[row, token, head] = weights @ v / weights.sum()
    return out


@functools.cache
def runner(implementation: DecodeAttention):
    return jax.jit(functools.partial(decode_attention, implementation=implementation))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("sizes", [Sizes(1, 8, 2, 128), Sizes(4, 7, 7, 72), Sizes(16, 14, 2, 64)], ids=str)
def test_new_tokens_attend_to_the_valid_slots_and_to_each_other(name, sizes):
    query, new_key, new_value, keys, values = arrays(sizes)
    out = runner(IMPLEMENTATIONS[name])(query, new_key, new_value, view(keys, values))
    np.testing.assert_allclose(out, written_out(*arrays(sizes)), atol=2e-5)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_int8_entries_give_what_the_numbers_they_stand_for_give(name):
    query, new_key, new_value, keys, values = arrays(Sizes(4, 7, 7, 72))
    held = to_int8(jnp.asarray(keys)), to_int8(jnp.asarray(values))
    out = runner(IMPLEMENTATIONS[name])(query, new_key, new_value, view(*held))
    meant = [np.asarray(decode_entries(x)) for x in held]
    np.testing.assert_allclose(out, written_out(query, new_key, new_value, *meant), atol=2e-5)
    assert np.abs(out - written_out(*arrays(Sizes(4, 7, 7, 72)))).max() > 1e-4  # and they are not exact


@pytest.mark.parametrize("name", ["blocks", "pallas"])
def test_blocks_beyond_what_is_used_are_not_read(name):
    query, new_key, new_value, keys, values = arrays(Sizes(1, 8, 2, 128))
    length = np.minimum(LENGTH, 250)
    right = runner(WholeCache())(query, new_key, new_value, view(keys, values, length))
    beyond = np.arange(CAPACITY) >= 256
    if name == "pallas":  # row by row: its own blocks alone
        beyond = beyond | (np.arange(CAPACITY) >= -(-length // 128)[:, None] * 128)
    beyond = np.atleast_2d(beyond)[None, :, None, :, None]
    poisoned = view(np.where(beyond, np.nan, keys), np.where(beyond, np.nan, values), length)
    out = runner(IMPLEMENTATIONS[name])(query, new_key, new_value, poisoned)
    np.testing.assert_allclose(out[length > 0], right[length > 0], atol=2e-5)


def test_a_shorter_length_takes_tokens_back():
    query, new_key, new_value, keys, values = arrays(Sizes(4, 7, 7, 72))
    shorter = np.maximum(LENGTH - 3, START)
    first = runner(WholeCache())(query, new_key, new_value, view(keys, values, shorter))
    keys, values = keys.copy(), values.copy()
    for row, at in enumerate(shorter):
        keys[:, row, :, at:] = values[:, row, :, at:] = 7.0
    second = runner(WholeCache())(query, new_key, new_value, view(keys, values, shorter))
    np.testing.assert_array_equal(first, second)


def test_several_tokens_at_once_give_what_one_after_the_other_gives():
    query, new_key, new_value, keys, values = arrays(Sizes(4, 7, 7, 72))
    room = np.minimum(LENGTH, CAPACITY - 4)
    at_once = runner(WholeCache())(query, new_key, new_value, view(keys, values, room))
    keys, values = keys.copy(), values.copy()
    for token in range(4):
        own = slice(token, token + 1)
        one = runner(WholeCache())(
            query[:, own], new_key[:, own], new_value[:, own], view(keys, values, room + token)
        )
        np.testing.assert_allclose(one[:, 0], at_once[:, token], atol=2e-5)
        for row, at in enumerate(room + token):
            keys[:, row, :, at], values[:, row, :, at] = new_key[row, token], new_value[row, token]


def test_the_kernel_runs_over_a_mesh():
    query, new_key, new_value, keys, values = arrays(Sizes(1, 8, 2, 128))
    kernel = IMPLEMENTATIONS["pallas"]
    alone = runner(kernel)(query, new_key, new_value, view(keys, values))
    with jax.set_mesh(make_mesh({"data": 2, "fsdp": 2, "tensor": 2})):
        divided = jax.jit(functools.partial(decode_attention, implementation=kernel))(
            query, new_key, new_value, view(keys, values)
        )
    np.testing.assert_allclose(alone, divided, atol=1e-6)


def written(keys, new, at, count) -> np.ndarray:
    """Slot by slot."""
    out = keys.copy()
    for row, first in enumerate(at):
        for token in range(count[row]):
            out[:, row, :, first + token] = new[:, row, :, token]
    return out


@pytest.mark.parametrize("new_tokens", [1, 5])
@pytest.mark.parametrize("form", ["windows", "kernel"])
@pytest.mark.parametrize("held", ["numbers", "int8"])
def test_new_tokens_are_written_into_their_slots_and_nowhere_else(new_tokens, form, held):
    random = np.random.default_rng(1)
    keys = random.standard_normal((3, 4, 2, 70, 8), np.float32)
    new = random.standard_normal((3, 4, 2, new_tokens, 8), np.float32)
    at, count = np.array([0, 30, 64, 70 - new_tokens]), np.array([new_tokens, new_tokens, 0, new_tokens])
    before, given = (to_int8(jnp.asarray(x)) if held == "int8" else jnp.asarray(x) for x in (keys, new))
    if form == "windows":
        (after,) = jax.jit(write_tokens)((before,), (given,), at, count)
    else:
        write = jax.jit(functools.partial(write_few_tokens, interpret=True))
        after = jax.tree.map(lambda x, y: write(x, y, at, count), before, given)
    for mine, old, update in zip(*map(jax.tree.leaves, (after, before, given)), strict=True):
        np.testing.assert_array_equal(mine, written(np.asarray(old), np.asarray(update), at, count))
