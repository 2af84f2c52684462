"""Decoding on the device: the picture grammar, chunks, rows that enter, and agreement with a second pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.pipelines.batching import PictureRequest, PromptRows, prompt_rows
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.sampling.decode import (
    DecodePlan,
    Prefill,
    Requests,
    admit,
    decode_chunk,
    decoded_sequence,
    prefill,
    start,
)
from tests.tiny_model import tiny_pipeline

MAX_TOKENS = 32
run_prefill = jax.jit(prefill, static_argnames="plan")
run_start = jax.jit(start, static_argnames=("max_tokens", "plan", "guided"))
run_chunk = jax.jit(decode_chunk, static_argnames="plan")
run_admit = jax.jit(admit, static_argnames="plan")


@functools.cache
def pipeline():
    return tiny_pipeline()


def decoder() -> Decoder:
    return pipeline().loaded.model.decoder


def plan() -> DecodePlan:
    return pipeline().decode_plan


@functools.cache
def prepared() -> tuple[Prefill, PromptRows, Requests]:
    """Three pictures: grids of 4x3, 3x5 and 4x3 (columns x rows) from two prompts."""
    pipe = pipeline()
    wanted = [("a cat", (4, 3)), ("two dogs", (3, 5)), ("a cat", (4, 3))]
    requests = [
        PictureRequest(text, seed, picture_size(pipe.loaded.config, 16, 16, grid))
        for seed, (text, grid) in enumerate(wanted)
    ]
    rows = prompt_rows(pipe.loaded.tokenizer, requests, negative=None, guided=True, num_rows=3)
    options = TextToImageOptions(temperature=1.0, ar_guidance_scale=3.0, repetition_penalty=1.1)
    asked = jax.tree.map(jnp.asarray, pipe.decode_requests(requests, rows, options))
    return run_prefill(decoder(), rows.ids, rows.lengths, plan=plan()), rows, asked


def begin():
    prompts, _, requests = prepared()
    return run_start(decoder(), prompts, requests, max_tokens=MAX_TOKENS, plan=plan(), guided=True)


@functools.cache
def finished():
    return run_chunk(decoder(), begin(), 1000, plan=plan())


def test_a_prompt_is_prefilled_once_for_all_its_pictures():
    _, rows, requests = prepared()
    assert rows.prompt[0] == rows.prompt[2] != rows.prompt[1]
    assert len(rows.ids) == 4  # two prompts and two openings


def test_every_row_follows_its_own_grid():
    words = plan().vocabulary
    for tokens, (rows, cols) in zip(np.asarray(finished().tokens), [(3, 4), (5, 3), (3, 4)], strict=True):
        n = rows * (cols + 1)
        lines = tokens[:n].reshape(rows, cols + 1)
        assert (lines[:, -1] == words.end_of_line).all()
        assert ((lines[:, :-1] >= words.visual_start) & (lines[:, :-1] < words.visual_end)).all()
        assert tokens[n] == words.image_end and not tokens[n + 1 :].any()


def test_chunks_of_any_length_give_the_tokens_of_one_launch():
    state = begin()
    for steps in (1, 7, 2, 30):
        state = run_chunk(decoder(), state, steps, plan=plan())
    assert np.array_equal(state.tokens, finished().tokens)
    assert np.allclose(state.features, finished().features, atol=1e-5)


def test_a_row_that_enters_between_chunks_draws_what_it_draws_from_the_start():
    prompts, _, requests = prepared()
    state = run_chunk(decoder(), begin(), 5, plan=plan())
    newcomer = jax.tree.map(lambda x: x[1:2], requests)
    state = run_admit(decoder(), state, jnp.asarray(0), prompts, newcomer, plan=plan())
    state = run_chunk(decoder(), state, 1000, plan=plan())
    assert np.array_equal(state.tokens[0], finished().tokens[1])
    assert np.array_equal(state.tokens[1:], finished().tokens[1:])


def test_features_met_while_decoding_are_those_of_a_second_pass():
    prompts, rows, _ = prepared()
    sequence = decoded_sequence(prompts, finished(), jnp.asarray(rows.answer_start))
    order = np.argsort(~np.asarray(sequence.valid), axis=1, kind="stable")
    ids = np.take_along_axis(np.asarray(sequence.ids), order, 1)
    valid = np.take_along_axis(np.asarray(sequence.valid), order, 1)
    features = np.take_along_axis(np.asarray(sequence.features), order[..., None], 1)
    positions = np.broadcast_to(np.arange(ids.shape[1]), (3, *ids.shape))
    again = jax.jit(lambda d: d(ids, positions, segments=valid.astype(np.int32), taps=plan().taps).features)(
        decoder()
    )
    assert np.abs((np.asarray(again) - features)[valid]).max() < 2e-5


def test_the_unconditional_row_sees_the_answer_opening_alone():
    prompts, rows, requests = prepared()
    state = begin()
    openings = rows.lengths[rows.opening]
    assert np.array_equal(np.asarray(state.cache.length)[3:], openings)
    assert (openings < rows.lengths[rows.prompt]).all()


def test_another_prompt_in_the_batch_changes_nothing_for_a_row():
    prompts, rows, requests = prepared()
    swapped = jax.tree.map(lambda x: x.at[2].set(x[1]), requests)
    state = run_start(decoder(), prompts, swapped, max_tokens=MAX_TOKENS, plan=plan(), guided=True)
    state = run_chunk(decoder(), state, 1000, plan=plan())
    assert np.array_equal(state.tokens[:2], finished().tokens[:2])
    assert np.array_equal(state.tokens[2], finished().tokens[1])
