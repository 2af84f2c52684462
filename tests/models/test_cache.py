"""The cache as an object: its int8 form, rows that are taken and put, and what int8 does to scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.ops.attention.cache_entries import Int8Entries
from tests.cache_numbers import decode_entries
from tests.tiny_model import random_weights

TINY = DecoderConfig(
    hidden_size=16,
    intermediate_size=24,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=64,
    mrope_section=(2, 1, 1),
)
MIDDLE = dataclasses.replace(
    TINY,
    hidden_size=256,
    intermediate_size=512,
    num_layers=8,
    num_heads=8,
    head_dim=64,
    vocab_size=512,
    mrope_section=(12, 10, 10),
)
INT8_ERROR = {"tiny": 0.005, "middle": 0.01}
"""Norm of the difference of the scores over their norm, five steps after a prompt of 32 tokens."""


def cache(shape=(2, 3, 2, 6, 8), seed: int = 0) -> KVCache:
    random = np.random.default_rng(seed)
    keys, values = (jnp.asarray(random.standard_normal(shape, np.float32)) for _ in range(2))
    row = jnp.arange(shape[1])
    return KVCache(keys, values, 0 * row, row + 1, row + 1)


def test_int8_entries_are_within_half_a_scale():
    held = cache().in_format("int8")
    for exact, entries in ((cache().keys, held.keys), (cache().values, held.values)):
        assert (
            isinstance(entries, Int8Entries)
            and isinstance(exact, jax.Array)
            and entries.codes.dtype == jnp.int8
        )
        assert np.all(np.abs(decode_entries(entries) - exact) <= 0.5001 * entries.scale[..., None])


def test_a_token_of_zeros_stays_zero_in_int8():
    zero = dataclasses.replace(cache(), keys=jnp.zeros((1, 1, 1, 2, 4)), values=jnp.zeros((1, 1, 1, 2, 4)))
    assert np.array_equal(decode_entries(zero.in_format("int8").keys), np.zeros((1, 1, 1, 2, 4)))


@pytest.mark.parametrize("form", ["model", "int8"])
def test_rows_are_taken_into_a_larger_cache_and_put_into_another(form):
    mine, other = cache().in_format(form), cache((2, 2, 2, 4, 8), seed=1)
    larger = mine.take(jnp.array([2, 0, 2]), 9)
    assert larger.capacity == 9 and larger.length.tolist() == [3, 1, 3]
    exact = decode_entries(mine.keys)
    assert np.array_equal(decode_entries(larger.keys)[:, :, :, :6], exact[:, np.array([2, 0, 2])])
    mixed = larger.put(jnp.asarray(1), other, jnp.asarray(1))
    assert mixed.length.tolist() == [3, 2, 3]
    wanted = decode_entries(other.in_format(form).values)[:, 1]
    assert np.array_equal(decode_entries(mixed.values)[:, 1, :, :4], wanted)
    assert np.array_equal(decode_entries(mixed.values)[:, 0], decode_entries(larger.values)[:, 0])


@pytest.mark.parametrize(("name", "config"), [("tiny", TINY), ("middle", MIDDLE)])
def test_an_int8_cache_changes_scores_by_less_than_the_stated_error(name, config):
    decoder = random_weights(abstract(lambda: Decoder(config)), 0, single_device_mesh())
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 37))
    at = jnp.full((2,), 32)

    @jax.jit
    def steps(decoder: Decoder, cache: KVCache) -> jax.Array:
        scores = []
        for token in range(32, 37):
            hidden, _, cache = decoder.step(jnp.asarray(ids)[:, token], cache)
            scores.append(decoder.logits(hidden))
        return jnp.stack(scores)

    positions = np.broadcast_to(np.arange(32), (3, 2, 32))
    out = jax.jit(lambda d: d(ids[:, :32], positions, keep_cache=True))(decoder)
    plain = KVCache(out.keys, out.values, 0 * at, at, at).take(jnp.arange(2), 40)
    exact, rounded = steps(decoder, plain), steps(decoder, plain.in_format("int8"))
    error = float(jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact))
    assert 1e-5 < error < INT8_ERROR[name]
