"""Text decoding: stop tokens, budgets, seeds, streams of single tokens, and later turns over the same cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.sampling.logits import SamplingSettings
from mammoth_jax.sampling.text import (
    NO_TOKEN,
    ReadPrompts,
    TextInputs,
    TextPlan,
    TextRequests,
    TextState,
    read,
    read_more,
    scores,
    start,
    step,
    write_answers,
)
from tests.tiny_model import tiny_pipeline

MAX_TOKENS = 8
CAPACITY = 32
PLAN = TextPlan(stop_ids=())
run_read = jax.jit(read, static_argnames="capacity")
run_more = jax.jit(read_more)
run_write = jax.jit(write_answers, static_argnames=("max_tokens", "plan"))
run_step = jax.jit(step, static_argnames="plan")


@functools.cache
def decoder() -> Decoder:
    return tiny_pipeline().loaded.model.decoder


def inputs(rows, starts=(0, 0)) -> TextInputs:
    """Rows of text of any lengths, padded to 8, from position ``starts`` on."""
    ids = np.zeros((len(rows), 8), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    positions = np.arange(8)[None] + np.asarray(starts[: len(rows)])[:, None]
    lengths = np.asarray([len(row) for row in rows], np.int32)
    return TextInputs(ids, lengths, np.broadcast_to(positions, (3, *ids.shape)).astype(np.int32))


def requests(
    seeds=(0, 1), budgets=(MAX_TOKENS, MAX_TOKENS), temperature=0.0, top_k=0, penalty=1.0
) -> TextRequests:
    n = len(seeds)
    return TextRequests(
        np.asarray(seeds, np.uint32),
        np.asarray(budgets, np.int32),
        SamplingSettings(
            guidance=np.ones(n, np.float32),
            temperature=np.full(n, temperature, np.float32),
            top_k=np.full(n, top_k, np.int32),
            top_p=np.ones(n, np.float32),
            repetition_penalty=np.full(n, penalty, np.float32),
        ),
    )


ROWS = [[65, 66, 67], [70, 71, 72, 73, 74]]


@functools.cache
def prompts() -> ReadPrompts:
    return run_read(decoder(), inputs(ROWS), capacity=CAPACITY)


def first_scores(read_prompts: ReadPrompts):
    return scores(decoder(), read_prompts.hidden, PLAN)


def write(asked: TextRequests, plan: TextPlan = PLAN) -> TextState:
    return run_write(decoder(), prompts(), asked, max_tokens=MAX_TOKENS, plan=plan)


@functools.cache
def greedy() -> TextState:
    return write(requests())


def test_greedy_answers_are_the_best_token_of_a_pass_over_everything_before():
    tokens = np.asarray(greedy().tokens)
    whole = [[*row, *answer] for row, answer in zip(ROWS, tokens.tolist(), strict=True)]
    padded = np.zeros((2, 16), np.int32)
    for i, row in enumerate(whole):
        padded[i, : len(row)] = row
    positions = np.broadcast_to(np.arange(16), (3, 2, 16))
    scores = jax.jit(lambda d, ids: d.logits(d(ids, positions).hidden, "text"))(decoder(), padded)
    for i, row in enumerate(ROWS):
        best = np.argmax(scores[i, len(row) - 1 : len(row) - 1 + MAX_TOKENS], axis=-1)
        np.testing.assert_array_equal(tokens[i], best)
    assert greedy().cache.length.tolist() == [3 + MAX_TOKENS, 5 + MAX_TOKENS]


def test_a_stop_token_ends_its_row_and_is_not_fed():
    tokens = np.asarray(greedy().tokens)
    stop = int(tokens[0, 2])
    ends = [int(np.argmax(row == stop)) + 1 if stop in row else MAX_TOKENS for row in tokens]
    state = write(requests(), TextPlan(stop_ids=(stop,)))
    assert state.count.tolist() == ends
    for row, end in enumerate(ends):
        assert state.tokens[row, :end].tolist() == tokens[row, :end].tolist()
        assert np.all(state.tokens[row, end:] == NO_TOKEN)
    assert bool(state.finished[0]) and int(state.cache.length[0]) == 3 + ends[0] - 1


def test_forbidden_ids_are_never_written():
    forbidden = tuple(sorted(set(np.asarray(greedy().tokens).ravel().tolist())))
    state = write(requests(), TextPlan(stop_ids=(), forbidden_ids=forbidden))
    assert not set(forbidden) & set(np.asarray(state.tokens).ravel().tolist())


def test_each_row_has_its_own_budget():
    state = write(requests(budgets=(3, 0)))
    assert state.count.tolist() == [3, 0] and state.cache.length.tolist() == [6, 5]
    assert state.tokens[0, :3].tolist() == greedy().tokens[0, :3].tolist()


def test_a_sampled_row_depends_on_its_seed_alone():
    first, again, other = (write(requests(seeds, temperature=2.0)) for seeds in ((5, 6), (5, 9), (7, 6)))
    np.testing.assert_array_equal(first.tokens[0], again.tokens[0])
    np.testing.assert_array_equal(first.tokens[1], other.tokens[1])
    assert first.tokens[0].tolist() != other.tokens[0].tolist()


def test_the_best_one_of_top_k_is_greedy():
    state = write(requests(temperature=2.0, top_k=1))
    np.testing.assert_array_equal(state.tokens, greedy().tokens)


def test_single_steps_write_what_the_loop_writes():
    state, seen = start(prompts(), requests(budgets=(MAX_TOKENS, 2)), MAX_TOKENS), []
    for _ in range(4):
        state, ids = run_step(decoder(), state, plan=PLAN)
        seen.append(ids.tolist())
    assert [ids[0] for ids in seen] == greedy().tokens[0, :4].tolist()
    assert [ids[1] for ids in seen] == [*greedy().tokens[1, :2].tolist(), NO_TOKEN, NO_TOKEN]


def test_a_second_turn_equals_reading_everything_from_scratch():
    state = write(requests(budgets=(2, 0)))
    second = [[80, 81], [82, 83, 84]]
    before = ReadPrompts(state.cache, state.hidden, state.seen)
    more = run_more(decoder(), before, inputs(second, state.cache.position.tolist()))
    whole = [[*ROWS[0], *state.tokens[0, :2].tolist(), *second[0]], [*ROWS[1], *second[1]]]
    scratch = run_read(decoder(), inputs(whole), capacity=CAPACITY)
    np.testing.assert_allclose(first_scores(more), first_scores(scratch), atol=1e-4)
    np.testing.assert_array_equal(more.seen, scratch.seen)
    assert more.cache.length.tolist() == scratch.cache.length.tolist() == [7, 8]
    assert more.cache.position.tolist() == scratch.cache.position.tolist()


def test_a_row_that_says_nothing_keeps_its_state():
    more = run_more(decoder(), prompts(), inputs([[], [80]], (3, 5)))
    np.testing.assert_array_equal(more.hidden[0], prompts().hidden[0])
    np.testing.assert_array_equal(more.seen[0], prompts().seen[0])
    assert jnp.abs(more.hidden[1] - prompts().hidden[1]).max() > 1e-3


def test_the_repetition_penalty_is_that_of_transformers():
    """Greedy, step by step, from the scores of whole passes and the formula on the ids so far.

    A penalty below 1 prefers ids that occurred, so that it matters from the first token on, that of the prompt.
    """
    penalty, steps = 0.3, 4
    written = np.asarray(write(requests(penalty=penalty)).tokens)[:, :steps]
    assert not np.array_equal(written, np.asarray(greedy().tokens)[:, :steps])
    forward = jax.jit(
        lambda d, ids: d.logits(d(ids, np.broadcast_to(np.arange(16), (3, 2, 16))).hidden, "text")
    )
    rows = [list(row) for row in ROWS]
    for at in range(steps):
        padded = np.zeros((2, 16), np.int32)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        scores = np.asarray(forward(decoder(), padded))
        for i, row in enumerate(rows):
            following = scores[i, len(row) - 1].copy()
            met = np.unique(row)
            following[met] = np.where(following[met] < 0, following[met] * penalty, following[met] / penalty)
            row.append(int(np.argmax(following)))
            assert written[i, at] == row[-1]


def test_ids_that_occurred_are_those_of_the_prompt_and_of_what_was_fed():
    state = write(requests(budgets=(2, 0)))
    met = [set(np.flatnonzero(row).tolist()) for row in np.asarray(state.seen)]
    assert met == [{*ROWS[0], *np.asarray(state.tokens)[0, :2].tolist()}, set(ROWS[1])]


def with_generation_winning(column: int) -> Decoder:
    """The decoder with a generation head that scores one column far above all text, whatever the state."""
    values = {}
    for name, parameter in named_parameters(decoder()).items():
        value = parameter[...]
        if name == "gen_head.kernel":
            state = prompts().hidden[0]
            value = jnp.zeros_like(value).at[:, column].set(100 * state / jnp.sum(state**2))
        values[name] = value
    return with_parameters(decoder(), values)


def test_a_generation_id_may_be_written_and_stops():
    first = decoder().config.gen_vocab_start_index
    chosen, other = first + 7, first + 3
    winning, wanted = with_generation_winning(7), requests(budgets=(MAX_TOKENS, 0))
    plan = TextPlan(stop_ids=(chosen,), generation_ids=(other, chosen))
    state = run_write(winning, prompts(), wanted, max_tokens=MAX_TOKENS, plan=plan)
    assert state.tokens[0].tolist() == [chosen] + [NO_TOKEN] * (MAX_TOKENS - 1)
    assert bool(state.finished[0]) and int(state.cache.length[0]) == len(ROWS[0])
    without = run_write(winning, prompts(), wanted, max_tokens=MAX_TOKENS, plan=PLAN)
    np.testing.assert_array_equal(without.tokens[0], greedy().tokens[0])


def test_generation_ids_score_as_the_whole_head_does():
    first = decoder().config.gen_vocab_start_index
    plan = TextPlan((), generation_ids=(first + 9, first, first + 4))
    both = scores(decoder(), prompts().hidden, plan)
    every = decoder().logits(prompts().hidden, "all")
    text = decoder().config.vocab_size
    np.testing.assert_allclose(both, every[:, [*range(text), text + 9, text, text + 4]], atol=1e-6)
    equations = jax.make_jaxpr(lambda d, h: scores(d, h, plan))(decoder(), prompts().hidden).eqns
    shapes = {variable.aval.shape for equation in equations for variable in equation.outvars}
    assert (2, text) in shapes and (2, decoder().config.gen_vocab_size) not in shapes


def test_a_generation_id_that_is_no_stop_is_fed_to_its_expert():
    first = decoder().config.gen_vocab_start_index
    chosen = first + 7
    plan = TextPlan(stop_ids=(), generation_ids=(chosen,))
    winning = with_generation_winning(7)
    state = run_write(winning, prompts(), requests(budgets=(1, 0)), max_tokens=MAX_TOKENS, plan=plan)
    assert state.tokens[0, 0] == chosen and state.seen[0, chosen]
    whole = inputs([[*ROWS[0], chosen], ROWS[1]])
    np.testing.assert_allclose(
        state.hidden[0], run_read(winning, whole, capacity=CAPACITY).hidden[0], atol=1e-5
    )


def test_an_id_outside_the_generation_vocabulary_is_refused():
    with pytest.raises(InputError, match="generation ids"):
        scores(decoder(), prompts().hidden, TextPlan((), generation_ids=(5,)))
