"""Int8 weights and an int8 cache for loops of visual tokens and of text: only there, only if asked for."""

import functools

import jax
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.pipelines import chat_session, loading, text_to_image
from mammoth_jax.pipelines.chat import ChatPipeline, chat_options
from mammoth_jax.pipelines.chat_session import ChatSession
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.options import parse_options
from mammoth_jax.sampling import unified
from tests.cache_numbers import decode_entries
from tests.tiny_model import tiny_pipeline

INT8 = {"decode_weights": "int8", "cache": "int8"}
SMALL = {"height": 16, "width": 24, "num_inference_steps": 2, "temperature": 1.0, "top_k": 5}


@functools.cache
def pipeline():
    return tiny_pipeline()


@pytest.fixture
def calls(monkeypatch) -> dict:
    """Arguments of the programs that read the decoder."""
    seen: dict = {}

    def record(name, program):
        def call(*args, **kwargs):
            seen[name] = (args, kwargs)
            return program(*args, **kwargs)

        monkeypatch.setattr(text_to_image, name, call)

    for name in ("encode_program", "draw_program"):
        record(name, getattr(text_to_image, name))
    return seen


def dtypes(tree) -> set:
    return {str(x.dtype) for x in jax.tree.leaves(tree)}


@pytest.mark.slow
def test_a_drawing_with_both_options_runs_and_only_its_loop_reads_int8_weights(calls):
    (picture,) = pipeline()("a cat", **SMALL, **INT8).pictures
    assert picture.codes is not None and picture.codes.shape == (2, 3) and picture.pixels.std() > 0
    model = pipeline().loaded.model.decoder
    args, kwargs = calls["draw_program"]
    assert calls["encode_program"][0][0] is model and args[0] is model and dtypes(model) == {"float32"}
    assert "int8" in dtypes(kwargs["steps"]) and kwargs["plan"].cache_format == "int8"


def test_without_the_options_the_loop_is_given_what_it_always_was(calls):
    pipeline()("a cat", **SMALL, mode="ar")
    args, kwargs = calls["draw_program"]
    assert "steps" not in kwargs and kwargs["plan"] == pipeline().decode_plan
    assert args[0] is pipeline().loaded.model.decoder


def test_the_weights_are_rounded_once_for_all_pipelines_over_a_model(monkeypatch):
    rounded = []

    def count(decoder):
        rounded.append(decoder)
        return int8_decoder(decoder)

    int8_decoder = loading.int8_decoder
    monkeypatch.setattr(loading, "int8_decoder", count)
    loaded = tiny_pipeline().loaded
    assert loaded.int8_decoder is loaded.int8_decoder
    assert EditPipeline(loaded).drawing.loaded.int8_decoder is loaded.int8_decoder
    assert len(rounded) == 1


def test_a_second_pass_over_the_sequence_keeps_the_models_own_weights(monkeypatch):
    seen = []
    monkeypatch.setattr(unified, "decode_chunk", lambda decoder, state, *_: seen.append(decoder) or state)
    monkeypatch.setattr(unified, "start", lambda *args, **kwargs: "state")
    monkeypatch.setattr(unified, "finish", lambda decoder, *args, **kwargs: decoder)
    draw = functools.partial(
        unified.draw_tokens, "own", *[None] * 4, plan=None, conditions=None, max_tokens=1, guided=False
    )
    assert draw() == "own" and draw(steps="int8") == "own" and seen == ["own", "int8"]


@pytest.mark.slow
def test_eight_devices_draw_with_int8_weights_what_one_draws():
    sharded = tiny_pipeline(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    settings = {**SMALL, "mode": "ar", "decode_weights": "int8"}
    one, eight = (p("a cat", **settings).pictures[0].codes for p in (pipeline(), sharded))
    assert np.array_equal(one, eight)


@pytest.mark.parametrize("name", ["decode_weights", "cache"])
def test_an_unknown_format_is_refused(name):
    with pytest.raises(InputError, match=f"{name} 'int4'.*'int8'"):
        parse_options({name: "int4"})


def chat_pipeline() -> ChatPipeline:
    return ChatPipeline(pipeline().loaded, context_length=512)


def test_a_conversation_with_both_options_is_read_by_the_models_own_weights_and_written_with_int8(
    monkeypatch,
):
    seen: dict = {}

    def record(name):
        program = getattr(chat_session, name)

        def call(decoder, *args, **kwargs):
            seen.setdefault(name, []).append(dtypes(decoder))
            return program(decoder, *args, **kwargs)

        monkeypatch.setattr(chat_session, name, call)

    for name in ("read_program", "read_more_program", "write_program"):
        record(name)
    session = ChatSession(chat_pipeline())
    for question in ("hello", "and then?"):
        session.ask(question, max_new_tokens=4, **INT8)
        assert session.read is not None and session.read.cache.format == "int8"
    assert seen["read_program"] == seen["read_more_program"] == [{"float32"}]
    assert seen["write_program"] == [{"float32", "int8"}] * 2


def test_streams_and_batches_write_with_int8_what_a_session_writes():
    settings = {"max_new_tokens": 12, "temperature": 1.5, "seed": 1, **INT8}  # a seed that writes letters
    answer = ChatSession(chat_pipeline()).ask("hello", **settings)
    assert answer and "".join(ChatSession(chat_pipeline()).stream("hello", **settings)) == answer
    assert chat_pipeline()("hello", **settings).texts == [answer]


def test_a_later_turn_may_ask_for_an_int8_cache_and_keeps_what_was_said():
    session = ChatSession(chat_pipeline())
    session.ask("hello", max_new_tokens=4)
    assert session.read is not None
    before, capacity = session.read.cache, session.read.cache.capacity
    exact = np.asarray(before.keys)[..., : int(before.length[0]), :]
    assert before.format == "model"
    session.ask("no", max_new_tokens=4, cache="int8")
    cache = session.read.cache
    assert cache.format == "int8" and cache.capacity >= capacity
    rounded = np.asarray(decode_entries(cache.keys))[..., : exact.shape[-2], :]
    assert 0 < np.abs(rounded - exact).max() < 0.02 * np.abs(exact).max()
    session.ask("why", max_new_tokens=4)
    assert session.read.cache.format == "int8"


@pytest.mark.parametrize("name", ["decode_weights", "cache"])
def test_chat_refuses_an_unknown_format(name):
    with pytest.raises(InputError, match=f"{name} 'int4'.*'int8'"):
        chat_options({name: "int4"})
