"""Input with which a task cannot be done, and the smallest pictures with which it can."""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoint_convert.init_checkpoint import init_checkpoint
from mammoth_jax.core.errors import InputError
from mammoth_jax.pipelines.chat import ChatPipeline
from mammoth_jax.pipelines.chat_inputs import ChatFormat, dialogue
from mammoth_jax.pipelines.chat_session import ChatSession
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.processing.chat import Media
from tests.checkpoint_convert.folders import drop_tensors
from tests.tiny_model import tiny_config, tiny_pipeline, tiny_preview_config

ONE_TOKEN = {"max_new_tokens": 1}
ONE_STEP = {"num_inference_steps": 1, "temperature": 0.0}


@functools.cache
def chat() -> ChatPipeline:
    return ChatPipeline(tiny_pipeline().loaded, context_length=512)


@functools.cache
def editor() -> EditPipeline:
    return EditPipeline(tiny_pipeline().loaded)


def broken_file(folder: Path) -> Path:
    """A PNG that ends within its pixels."""
    whole, broken = folder / "whole.png", folder / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    broken.write_bytes(whole.read_bytes()[:1000])
    return broken


def refused(words: str):
    """Expects an error of one line."""
    return pytest.raises(InputError, match=rf"\A(?=.*{words})[^\n]*\Z")


@pytest.mark.slow
def test_a_picture_of_one_pixel_is_enlarged_and_asked_about():
    assert len(chat()("what?", images=[[Image.new("RGB", (1, 1))]], **ONE_TOKEN).ids[0]) == 1


@pytest.mark.slow
def test_a_picture_of_one_pixel_is_edited_at_the_least_size():
    drawn = editor()(Image.new("RGB", (1, 1)), "make it red", output_type="np", **ONE_STEP)
    assert drawn.images[0].shape == (*drawn.pictures[0].request.size.pixels, 3)


@pytest.mark.parametrize("size", [(20000, 20), (20, 20000)])
def test_a_strip_is_refused(size):
    strip = Image.new("RGB", size)
    words = f"{size[0]}x{size[1]} pixels: one side is more than 200 times the other; crop it"
    with refused(words):
        chat()("what?", images=[[strip]], **ONE_TOKEN)
    for off in ({}, {"use_vision": False, "use_tokens": False}):
        with refused(words):
            editor()(strip, "make it red", **off, **ONE_STEP)


def test_a_picture_that_does_not_decode_is_named(tmp_path):
    file = broken_file(tmp_path)
    with refused("broken.png: does not decode"):
        chat()("what?", images=[[file]], **ONE_TOKEN)
    with refused("picture of 1000 bytes: does not decode"):
        chat()("what?", images=[[file.read_bytes()]], **ONE_TOKEN)
    with refused("none.png: no such file"):
        chat()("what?", images=[[str(tmp_path / "none.png")]], **ONE_TOKEN)
    with refused("picture 7: expected a PIL image"):
        chat()([[{"role": "user", "content": [{"type": "image", "image": 7}]}]], **ONE_TOKEN)


def test_a_video_without_frames_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    for name, words in (
        ("empty", "no frames in this folder; expected pictures"),
        ("text.mp4", "does not decode"),
        ("none", "no such file or folder"),
    ):
        with refused(words):
            chat()("what?", videos=[[tmp_path / name]], **ONE_TOKEN)


def test_a_refused_video_leaves_the_conversation_as_it_was(tmp_path):
    session = ChatSession(chat())
    session.ask("hi", **ONE_TOKEN)
    held, cache = session.dialogue, session.read
    with refused("no such file"):
        session.ask("what?", videos=[tmp_path / "none"], **ONE_TOKEN)
    assert session.dialogue == held and session.read is cache


@pytest.mark.parametrize(("places", "given"), [(2, 1), (1, 2), (0, 1)])
def test_more_pictures_than_places_or_fewer_are_refused(places, given):
    loaded = chat().loaded
    shown = [Image.new("RGB", (32, 32))] * given
    with refused(f"{given} pictures for {places} places"):
        dialogue(loaded, ChatFormat.of(loaded)).ask([Media.IMAGE] * places + ["what?"], shown)


def test_more_than_five_references_are_refused():
    with refused("6 reference pictures for prompt 0: at most 5 fit this model; leave some out"):
        editor()([Image.new("RGB", (16, 16))] * 6, "make it red", **ONE_STEP)


def test_words_beyond_the_cache_are_refused_before_any_work():
    with refused("at most 512 fit the cache; shorten it"):
        chat()("a" * 600, **ONE_TOKEN)
    with refused("at most 512 fit the cache"):
        chat()("what?", images=[[Image.new("RGB", (2000, 2000))]], max_new_tokens=300)
    with refused("at most 4096 fit the cache; shorten"):
        editor()(Image.new("RGB", (16, 16)), "a" * 5000, **ONE_STEP)


@pytest.fixture(scope="module")
def preview(tmp_path_factory) -> Path:
    """A Preview folder as released, without MammothTok's weights."""
    folder = tmp_path_factory.mktemp("preview") / "folder"
    init_checkpoint(tiny_preview_config(), folder, seed=3)
    drop_tensors(folder, "gen_tokenizer.")
    return folder


@pytest.mark.slow
def test_editing_with_the_preview_says_what_to_switch_off(preview):
    pipeline = EditPipeline.from_pretrained(preview)
    shown = Image.new("RGB", (64, 64))
    with refused(r"has no mammothtok_encoder, mammothtok_codebook.*use_tokens=False, --no-tokens"):
        pipeline(shown, "make it red", **ONE_STEP)
    drawn = pipeline(shown, "make it red", use_tokens=False, output_type="np", **ONE_STEP)
    assert drawn.images[0].shape == (64, 64, 3)


def test_the_preview_chats_without_mammothtok_also_about_a_picture_of_one_pixel(preview):
    pipeline = ChatPipeline.from_pretrained(preview, parts=("text_decoder", "vision_tower"))
    assert pipeline("what?", images=[[Image.new("RGB", (1, 1))]], **ONE_TOKEN).ids


def test_a_checkpoint_without_the_decoder_is_refused(tmp_path):
    init_checkpoint(tiny_config(), tmp_path / "folder", seed=3)
    drop_tensors(tmp_path / "folder", "llm_model.")
    with refused("chat needs text_decoder, but this checkpoint has no text_decoder"):
        ChatPipeline.from_pretrained(tmp_path / "folder")("hi", **ONE_TOKEN)
    with refused("edit .* needs .* this checkpoint has no text_decoder"):
        EditPipeline.from_pretrained(tmp_path / "folder")(Image.new("RGB", (16, 16)), "x", **ONE_STEP)
