"""Decoding steps with int8 weights and an int8 cache: what their program takes in, and how far scores are off."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.int8_weights import int8_decoder
from mammoth_jax.ops.attention.cache_entries import Int8Entries
from mammoth_jax.sampling.decode import DecodePlan, Requests, VisualVocabulary, decode_chunk, prefill, start
from mammoth_jax.sampling.logits import SamplingSettings
from tests.tiny_model import random_weights, tiny_config

PLAN = DecodePlan(VisualVocabulary(1024, 1025, 1026, 1034), tiny_config().condition.taps)
PLANS = {cache: dataclasses.replace(PLAN, cache_format=cache) for cache in ("model", "int8")}


@functools.cache
def shapes(dtype: str = "float32") -> Decoder:
    """A decoder of 8 layers of width 256."""
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "mrope_section": (12, 10, 10)}
    config = dataclasses.replace(
        tiny_config().backbone.decoder, hidden_size=256, intermediate_size=768, num_layers=8, **heads
    )
    return abstract(lambda: Decoder(config), jnp.dtype(dtype))


def requests() -> Requests:
    """Two guided pictures of 2x3 tokens, drawn greedily."""
    ints, floats = (lambda *x: jnp.asarray(x, jnp.int32)), (lambda x: jnp.full(2, x, jnp.float32))
    settings = SamplingSettings(floats(2.0), floats(0.0), ints(0, 0), floats(1.0), floats(1.0))
    seeds = jnp.asarray([0, 1], jnp.uint32)
    return Requests(ints(0, 1), ints(2, 2), seeds, ints(2, 2), ints(3, 3), settings)


def prompts() -> tuple[jax.Array, jax.Array]:
    ids = np.random.default_rng(0).integers(0, 1000, (3, 64))
    return jnp.asarray(ids, jnp.int32), jnp.asarray([64, 40, 3], jnp.int32)


def begin(decoder: Decoder, plan: DecodePlan, ids: jax.Array, lengths: jax.Array):
    return start(decoder, prefill(decoder, ids, lengths, plan), requests(), 16, plan, guided=True)


def taken_in(decoder: Decoder, steps: Decoder, plan: DecodePlan) -> int:
    """Bytes of the arguments of the compiled loop that runs ``steps`` over ``decoder``'s caches."""
    state = jax.eval_shape(lambda d: begin(d, plan, *prompts()), decoder)
    run = jax.jit(lambda steps, state: decode_chunk(steps, state, 1, plan))
    memory = run.lower(steps, state).compile().memory_analysis()
    assert memory is not None
    return memory.argument_size_in_bytes


@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.5), ("float32", 0.25)])
def test_the_loop_takes_in_a_half_or_a_quarter_of_the_kernels_bytes(dtype, share):
    decoder = shapes(dtype)
    steps = jax.eval_shape(int8_decoder, decoder)
    own, rounded = named_parameters(decoder), named_parameters(steps)
    maps = [name.removesuffix(".codes") for name in rounded if name.endswith(".codes")]
    kernels = sum(own[f"{name}.kernel"].size for name in maps) * jnp.dtype(dtype).itemsize
    saved = taken_in(decoder, decoder, PLAN) - taken_in(decoder, steps, PLAN)
    print(f"{dtype}: kernels {kernels} bytes, in int8 {kernels - saved}, {(kernels - saved) / kernels:.3f}")
    assert share <= (kernels - saved) / kernels < 1.03 * share


def test_an_int8_cache_is_held_in_int8():
    state = jax.eval_shape(lambda d: begin(d, PLANS["int8"], *prompts()), shapes())
    assert isinstance(state.cache.keys, Int8Entries) and isinstance(state.cache.values, Int8Entries)


@pytest.mark.parametrize(
    ("weights", "cache", "most"),
    [
        pytest.param("int8", "model", 0.03, marks=pytest.mark.slow),
        pytest.param("model", "int8", 0.02, marks=pytest.mark.slow),
        ("int8", "int8", 0.04),
    ],
)
def test_scores_after_a_first_visual_token_are_off_by_a_few_percent(weights, cache, most):
    decoder, wanted = after_one_step()
    steps = int8_decoder(decoder) if weights == "int8" else decoder
    state = one_step(decoder, steps, PLANS[cache], *prompts())
    np.testing.assert_array_equal(state.tokens, wanted.tokens)  # the prompts' scores are the model's own
    off = float(jnp.linalg.norm(state.logits - wanted.logits) / jnp.linalg.norm(wanted.logits))
    print(f"weights {weights}, cache {cache}: {off:.4f}")
    assert 1e-3 < off < most


@functools.partial(jax.jit, static_argnames="plan")
def one_step(decoder: Decoder, steps: Decoder, plan: DecodePlan, ids: jax.Array, lengths: jax.Array):
    return decode_chunk(steps, begin(decoder, plan, ids, lengths), 1, plan)


@functools.cache
def after_one_step():
    decoder = random_weights(shapes(), 0, single_device_mesh())
    return decoder, one_step(decoder, decoder, PLAN, *prompts())
