"""Continuing a cache by several tokens: the same numbers as one pass over everything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.backbone.cache import KVCache
from mammoth_jax.models.backbone.config import DecoderConfig, ExpertRange
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.extend import extend
from tests.tiny_model import random_weights

CONFIG = DecoderConfig(
    hidden_size=16,
    intermediate_size=24,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=20,
    gen_vocab_size=12,
    gen_vocab_start_index=30,
    experts=ExpertRange("ffn_attention", 2, 4),
    mrope_section=(2, 1, 1),
    num_deepstack=1,
)
CAPACITY = 12
IDS = np.array([[3, 31, 7, 5, 5, 5, 5, 2, 9], [8, 6, 1, 4, 5, 5, 5, 5, 33]])
POSITIONS = np.stack(
    [
        [[0, 1, 2, 3, 3, 3, 3, 5, 6], [0, 1, 2, 3, 4, 4, 4, 4, 6]],
        [[0, 1, 2, 3, 3, 4, 4, 5, 6], [0, 1, 2, 3, 4, 4, 5, 5, 6]],
        [[0, 1, 2, 3, 4, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 4, 5, 6]],
    ]
)
"""A picture of 2x2 tokens at the 5s: it is read in the second pass of each row."""
PICTURE = IDS == 5
SPLIT = np.array([2, 4])


@functools.cache
def decoder() -> Decoder:
    return random_weights(abstract(lambda: Decoder(CONFIG)), 0, single_device_mesh())


def features() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings with a picture in place, and what DeepStack adds there."""
    noise = np.random.default_rng(0).standard_normal((2, *IDS.shape, 16)).astype(np.float32)
    embeddings = np.where(PICTURE[..., None], noise[0], decoder().embed_ids(jnp.asarray(IDS)))
    return embeddings, np.where(PICTURE[..., None], noise[1], 0)[None]


@functools.cache
def whole():
    embeddings, deepstack = features()
    return jax.jit(lambda d: d(IDS, POSITIONS, embeddings=embeddings, deepstack=deepstack, keep_cache=True))(
        decoder()
    )


run_extend = jax.jit(extend)


def first_turn() -> KVCache:
    """A cache with ``SPLIT`` tokens a row; what lies behind them is noise."""
    out = whole()
    held = (np.arange(IDS.shape[1])[None] < SPLIT[:, None])[None, :, None, :, None]
    grow = ((0, 0), (0, 0), (0, 0), (0, CAPACITY - IDS.shape[1]), (0, 0))
    keys, values = (
        jnp.pad(jnp.where(held, x, 7.0), grow, constant_values=7.0) for x in (out.keys, out.values)
    )
    at = jnp.asarray(SPLIT)
    return KVCache(keys, values, jnp.zeros_like(at), at, at)


def second_turn(x: np.ndarray, axis: int, fill) -> np.ndarray:
    """What comes after ``SPLIT`` in each row along ``axis`` (rows along the one before), right-padded to 8."""
    x = np.moveaxis(np.asarray(x), (axis - 1, axis), (0, 1))
    out = np.full((2, 8, *x.shape[2:]), fill, x.dtype)
    for row, at in enumerate(SPLIT):
        out[row, : x.shape[1] - at] = x[row, at:]
    return np.moveaxis(out, (0, 1), (axis - 1, axis))


@pytest.mark.parametrize("fill", [0, 19])
def test_a_second_pass_over_the_new_tokens_equals_one_pass_over_all(fill):
    embeddings, deepstack = features()
    hidden, cache = run_extend(
        decoder(),
        second_turn(IDS, 1, fill),
        IDS.shape[1] - SPLIT,
        second_turn(POSITIONS, 2, fill),
        first_turn(),
        embeddings=second_turn(embeddings, 1, fill),
        deepstack=second_turn(deepstack, 2, fill),
    )
    for row, at in enumerate(SPLIT):
        new = IDS.shape[1] - at
        np.testing.assert_allclose(hidden[row, :new], whole().hidden[row, at:], atol=1e-5)
    np.testing.assert_allclose(cache.keys[:, :, :, : IDS.shape[1]], whole().keys, atol=1e-5)
    assert np.all(cache.keys[:, :, :, IDS.shape[1] :] == 7.0)  # the padding is written nowhere
    assert cache.length.tolist() == [9, 9] and cache.position.tolist() == [7, 7]


def test_a_step_after_it_goes_on_where_it_ended():
    embeddings, deepstack = features()
    short = IDS.shape[1] - SPLIT - 1
    _, cache = run_extend(
        decoder(),
        second_turn(IDS, 1, 0),
        short,
        second_turn(POSITIONS, 2, 0),
        first_turn(),
        embeddings=second_turn(embeddings, 1, 0),
        deepstack=second_turn(deepstack, 2, 0),
    )
    hidden, _, _ = jax.jit(lambda d, ids, c: d.step(ids, c))(decoder(), IDS[:, -1], cache)
    np.testing.assert_allclose(hidden, whole().hidden[:, -1], atol=1e-5)


def test_a_row_without_new_tokens_stays_as_it_is():
    before = first_turn()
    _, after = run_extend(
        decoder(), second_turn(IDS, 1, 0), np.array([0, 3]), second_turn(POSITIONS, 2, 0), before
    )
    assert after.length.tolist() == [2, 7] and int(after.position[0]) == 2
    np.testing.assert_array_equal(np.asarray(after.keys)[:, 0], np.asarray(before.keys)[:, 0])
