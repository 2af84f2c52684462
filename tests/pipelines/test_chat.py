"""Chat: batches, turns that read only what is new, streams, and what is refused."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines import chat_session
from mammoth_jax.pipelines.chat import ChatOptions, ChatPipeline, read_program
from mammoth_jax.pipelines.chat_inputs import text_inputs
from mammoth_jax.pipelines.chat_session import ChatSession
from mammoth_jax.processing.text_generation_config import TextGenerationSettings
from mammoth_jax.processing.text_pieces import TextPieces
from tests.tiny_model import random_weights, tiny_config, tiny_pipeline

OPTIONS = {"max_new_tokens": 8}


@functools.cache
def pipeline() -> ChatPipeline:
    return ChatPipeline(tiny_pipeline().loaded, context_length=512)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_a_second_turn_reads_only_what_is_new_and_equals_reading_everything():
    session = ChatSession(pipeline())
    session.ask("what is it?", images=[picture(32, 48)], **OPTIONS)
    cached = len(session.dialogue.conversation.ids)
    session.ask("and this?", images=[picture(64, 32, 1)], **OPTIONS)
    last = session.dialogue
    opening = len(last.conversation.ids) - 8  # the second answer was cut off by its budget
    assert session.num_read[1] == opening - cached
    assert len(last.images) == 2
    inputs = text_inputs(pipeline().loaded, [last], [0], [0], 1)
    with jax.set_mesh(pipeline().loaded.mesh):
        scratch = read_program(pipeline().loaded.model.decoder, inputs, capacity=256)
    assert session.read is not None
    assert session.read.cache.length.tolist() == scratch.cache.length.tolist() == [len(last.conversation.ids)]
    assert session.read.cache.position.tolist() == scratch.cache.position.tolist()
    np.testing.assert_allclose(session.read.hidden, scratch.hidden, atol=1e-4)
    np.testing.assert_array_equal(session.read.seen, scratch.seen)


def test_a_batch_answers_each_question_as_if_it_were_alone():
    asked = ["what is it?", "hello"]
    images = [[picture(32, 48)], []]
    both = pipeline()(asked, images=images, **OPTIONS)
    for i in range(2):
        session = ChatSession(pipeline())
        assert session.ask(asked[i], images[i], **OPTIONS) == both.texts[i]
    assert len({tuple(row) for row in both.ids}) == 2


def test_messages_say_what_a_question_says():
    shown = picture(32, 48)
    parts = [{"type": "image", "image": shown}, {"type": "text", "text": "what is it?"}]
    messages = pipeline()([[{"role": "user", "content": parts}]], **OPTIONS)
    assert messages.ids == pipeline()("what is it?", images=[[shown]], **OPTIONS).ids


def test_pieces_of_a_stream_are_the_answer_and_leave_the_same_cache():
    whole, streamed = ChatSession(pipeline()), ChatSession(pipeline())
    answers = [whole.ask(question, temperature=1.5, **OPTIONS) for question in ("hi", "why?")]
    pieces = [list(streamed.stream(question, temperature=1.5, **OPTIONS)) for question in ("hi", "why?")]
    assert ["".join(each) for each in pieces] == answers
    assert whole.dialogue.conversation == streamed.dialogue.conversation
    assert whole.read is not None and streamed.read is not None
    assert whole.read.cache.length.tolist() == streamed.read.cache.length.tolist()


def test_a_stream_that_is_left_keeps_what_was_read():
    session = ChatSession(pipeline())
    stream = session.stream("hello", temperature=1.5, seed=3, **OPTIONS)
    next(stream)
    stream.close()
    held = session.dialogue.conversation.ids
    assert len(held) < session.num_read[0] + 8 and session.read is not None
    assert set(np.flatnonzero(session.read.seen[0]).tolist()) == set(held)  # not what was drawn ahead
    session.ask("go on", **OPTIONS)
    inputs = text_inputs(pipeline().loaded, [session.dialogue], [0], [0], 1)
    with jax.set_mesh(pipeline().loaded.mesh):
        scratch = read_program(pipeline().loaded.model.decoder, inputs, capacity=256)
    assert session.read is not None
    np.testing.assert_allclose(session.read.hidden, scratch.hidden, atol=1e-4)


def test_later_turns_give_their_cache_to_the_programs_that_write_it():
    session = ChatSession(pipeline())
    session.ask("a question of more than forty bytes, for 128 slots", **OPTIONS)
    assert session.read is not None
    before, capacity = session.read.cache, session.read.cache.capacity
    session.ask("no", **OPTIONS)
    assert session.read is not None and session.read.cache.capacity == capacity
    entries = jax.tree.leaves((before.keys, before.values))
    assert entries and all(leaf.is_deleted() for leaf in entries)


def test_a_failed_question_leaves_the_conversation_as_it_was(monkeypatch):
    session = ChatSession(pipeline())
    session.ask("hi", **OPTIONS)
    held, counts = session.dialogue, list(session.num_read)

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(chat_session, "write_program", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            session.ask("why?", **OPTIONS)
        patch.setattr(chat_session, "step_program", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(session.stream("why?", **OPTIONS))
    assert session.dialogue == held and session.num_read == counts
    other = ChatSession(pipeline())
    for question in ("hi", "why?"):
        other.ask(question, **OPTIONS)
    session.ask("why?", **OPTIONS)
    assert session.dialogue == other.dialogue
    assert session.num_read[1] == len(held.conversation.ids) + other.num_read[1]


def test_a_stop_id_of_the_checkpoint_ends_an_answer_and_is_no_part_of_it():
    first = ChatSession(pipeline())
    first.ask("hi", **OPTIONS)
    ids = first.dialogue.conversation.ids[-8:]
    stop = ids[3]
    kept = ids[: ids.index(stop)]
    settings = TextGenerationSettings(stop_ids=(stop,))
    ending = ChatPipeline(dataclasses.replace(pipeline().loaded, text_settings=settings), context_length=512)
    whole, streamed = ChatSession(ending), ChatSession(ending)
    text = ending.loaded.tokenizer.decode(list(kept))
    assert whole.ask("hi", **OPTIONS) == text == "".join(streamed.stream("hi", **OPTIONS))
    for session in (whole, streamed):
        held = session.dialogue.conversation.ids
        assert held[len(held) - len(kept) :] == kept and session.read is not None
        assert session.read.cache.length.tolist() == [len(held)]
    assert ending("hi", **OPTIONS).ids == [[*kept, stop]] and ending("hi", **OPTIONS).texts == [text]


def test_what_is_not_said_is_the_checkpoints():
    settings = TextGenerationSettings(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1, max_new_tokens=3
    )
    loaded = dataclasses.replace(pipeline().loaded, text_settings=settings)
    assert ChatOptions(top_k=5).resolved(loaded) == ChatOptions(3, 0.7, 5, 0.8, 1.1)
    greedy = dataclasses.replace(loaded, text_settings=dataclasses.replace(settings, do_sample=False))
    assert ChatOptions().resolved(greedy).temperature == 0
    assert ChatOptions(temperature=0.2).resolved(greedy).temperature == 0.2
    assert len(ChatPipeline(loaded)("hi").ids[0]) <= 3


def test_pieces_are_cut_between_characters():
    tokenizer = pipeline().loaded.tokenizer
    ids = tokenizer.encode("a好🎉")
    pieces = TextPieces(tokenizer)
    assert [piece for i in ids if (piece := pieces.add(i))] == ["a", "好", "🎉"]
    pieces.add(ids[1])
    assert pieces.rest() == "\ufffd"


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("a" * 600, {}, "fit the cache"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens 0"),
        ("a", {"temperature": -1.0}, "temperature -1"),
        ("a", {"top_p": 0.0}, "top_p 0"),
        ("a", {"beams": 3}, "unknown option 'beams'"),
        ("", {}, "empty question"),
        ([], {}, "no question"),
        (["a", "b"], {"images": [[]]}, "images for 1 of 2 questions"),
        ("a", {"images": ["a.png"]}, "images 'a.png'; expected a list for each question"),
        ("a", {"videos": [Path("a.mp4")]}, "videos .*; expected a list for each question"),
        ([["a"]], {}, "message 'a'; expected"),
        ([[{"role": "robot", "content": "a"}]], {}, "role 'robot'"),
        ([[{"role": "user", "content": [{"type": "sound"}]}]], {}, "content"),
        ([[{"role": "system", "content": "a"}]], {}, "without a question"),
    ],
)
def test_what_cannot_be_answered_is_refused(question, options, message):
    with pytest.raises(InputError, match=message):
        pipeline()(question, **{**OPTIONS, **options})


def test_a_refused_question_leaves_the_conversation_as_it_was():
    session = ChatSession(pipeline())
    with pytest.raises(InputError, match="fit the cache"):
        session.ask("a" * 600, **OPTIONS)
    assert not session.dialogue.conversation.ids and not session.num_read


def test_pictures_need_a_vision_tower():
    parts = frozenset({"text_decoder"})
    blind = random_weights(abstract(lambda: Mammoth(tiny_config(), parts=parts)), 0, single_device_mesh())
    alone = ChatPipeline(dataclasses.replace(pipeline().loaded, model=blind))
    assert alone("hello", **OPTIONS).ids
    with pytest.raises(InputError, match="has no vision_tower"):
        alone("what?", images=[[picture(32, 32)]], **OPTIONS)
