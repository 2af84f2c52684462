"""Pictures and videos through chat with both released families: windows, system turns, times, later turns."""

import functools
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.chat import ChatPipeline, read_program
from mammoth_jax.pipelines.chat_inputs import ChatFormat, Dialogue, dialogue, text_inputs
from mammoth_jax.pipelines.chat_session import ChatSession
from mammoth_jax.processing.chat import Media
from mammoth_jax.sampling.text import ReadPrompts, scores
from tests.tiny_model import tiny_config, tiny_pipeline, tiny_preview_config

OPTIONS = {"max_new_tokens": 4}
FAMILIES = {"qwen3_vl": tiny_config, "qwen2_5_vl": tiny_preview_config}
BOTH = pytest.mark.parametrize("family", FAMILIES)
SECOND_RARELY = pytest.mark.parametrize(
    "family", ["qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)]
)


@functools.cache
def pipeline(family: str) -> ChatPipeline:
    config: MammothConfig = FAMILIES[family]()
    return ChatPipeline(tiny_pipeline(config=config).loaded, context_length=2048)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def frames(folder: Path, seed: int = 0, count: int = 24) -> Path:
    """A folder of frames, a second's worth; they move, so that times differ."""
    folder.mkdir()
    for number in range(count):
        picture(32, 32, seed * 1000 + number).save(folder / f"{number}.png")
    return folder


def from_scratch(chat: ChatPipeline, talk: Dialogue) -> ReadPrompts:
    with jax.set_mesh(chat.loaded.mesh):
        inputs = text_inputs(chat.loaded, [talk], [0], [0], 1)
        return read_program(chat.loaded.model.decoder, inputs, capacity=1024)


def assert_same(chat: ChatPipeline, found: ReadPrompts | None, expected: ReadPrompts) -> None:
    assert found is not None
    decoder, plan = chat.loaded.model.decoder, chat.plan
    np.testing.assert_allclose(
        scores(decoder, found.hidden, plan), scores(decoder, expected.hidden, plan), atol=1e-4
    )
    assert found.cache.length.tolist() == expected.cache.length.tolist()
    assert found.cache.position.tolist() == expected.cache.position.tolist()
    np.testing.assert_array_equal(found.seen, expected.seen)


@SECOND_RARELY
def test_later_turns_with_pictures_read_only_them_and_equal_reading_everything(family):
    chat = pipeline(family)
    session = ChatSession(chat)
    shown = [picture(140, 112), picture(56, 84, 1)]  # the first is larger than a window of the tower
    session.ask("which is larger?", images=shown, **OPTIONS)
    cached = len(session.dialogue.conversation.ids)
    session.ask("and this?", images=[picture(84, 56, 2)], **OPTIONS)
    ids = session.dialogue.conversation.ids
    grids = [patches.grid for patches in session.dialogue.images]
    assert len(set(grids)) == 3 and session.num_read[1] == len(ids) - cached - 4
    placeholder = chat.loaded.config.backbone.image_token_id
    assert ids[cached:].count(placeholder) == grids[2].tokens(2)
    assert_same(chat, session.read, from_scratch(chat, session.dialogue))


def test_the_previews_tower_has_several_windows_in_that_picture():
    grid = dialogue_of("qwen2_5_vl").ask([Media.IMAGE], [picture(140, 112)]).images[0].grid
    tower = tiny_preview_config().backbone.vision
    assert isinstance(tower, Qwen25VLVisionConfig)
    assert grid.cols // 2 > tower.window_tokens and tower.fullatt_block_indexes == (1,)


def dialogue_of(family: str) -> Dialogue:
    loaded = pipeline(family).loaded
    return dialogue(loaded, ChatFormat.of(loaded))


@pytest.mark.parametrize(("family", "opened"), [("qwen3_vl", "user"), ("qwen2_5_vl", "system")])
def test_the_preview_has_a_system_turn_by_default(family, opened):
    tokenizer, talk = pipeline(family).loaded.tokenizer, dialogue_of(family).ask(["hi"])
    text = tokenizer.decode([i for i in talk.conversation.ids if i < 256])
    assert text.startswith(f"{opened}\n") and ("helpful" in text) == (opened == "system")


def test_a_system_message_takes_its_place():
    loaded = pipeline("qwen2_5_vl").loaded
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    talk = dialogue(loaded, ChatFormat.of(loaded), messages)
    text = loaded.tokenizer.decode([i for i in talk.conversation.ids if i < 256])
    assert text.startswith("system\nBe brief.") and "helpful" not in text


@SECOND_RARELY
def test_a_video_is_answered_alike_by_the_pipeline_and_in_a_conversation(family, tmp_path):
    chat, clip = pipeline(family), frames(tmp_path / "clip")
    whole = chat("what happens?", videos=[[clip]], **OPTIONS)
    session = ChatSession(chat)
    assert session.ask("what happens?", videos=[clip], **OPTIONS) == whole.texts[0]
    opening = session.num_read[0]
    assert list(session.dialogue.conversation.ids[opening:]) == whole.ids[0]
    session.ask("and now?", images=[picture(56, 56)], **OPTIONS)
    assert_same(chat, session.read, from_scratch(chat, session.dialogue))


@BOTH
def test_what_a_video_shows_and_when_matters(family, tmp_path):
    chat = pipeline(family)
    hidden = []
    for seed in (0, 1):
        talk = dialogue_of(family).ask([Media.VIDEO], videos=[frames(tmp_path / str(seed), seed)])
        hidden.append(np.asarray(from_scratch(chat, talk).hidden))
    assert np.abs(hidden[0] - hidden[1]).max() > 1e-3


def test_times_are_written_for_qwen3_and_in_the_positions_for_qwen25(tmp_path):
    clip = frames(tmp_path / "clip", count=24 * 4)  # 4 seconds, 2 frames of each second: 4 steps in time
    for family in FAMILIES:
        loaded, talk = pipeline(family).loaded, dialogue_of(family).ask([Media.VIDEO], videos=[clip])
        text = loaded.tokenizer.decode([i for i in talk.conversation.ids if i < 256])
        assert talk.videos[0].patches.grid.frames == 4
        times = [f"<{seconds:.1f} seconds>" for seconds in talk.videos[0].timestamps]
        assert len(set(times)) == 4
        assert [text.count(time) for time in times] == [1 if family == "qwen3_vl" else 0] * 4
        inputs = text_inputs(loaded, [talk], [0], [0], 1)
        places = inputs.ids[0] == loaded.config.backbone.video_token_id
        steps = np.asarray(inputs.positions)[:, 0, places][0].reshape(4, -1)
        assert all(len(set(row.tolist())) == 1 for row in steps)
        gaps = np.diff(steps[:, 0])
        assert set(gaps.tolist()) == {2} if family == "qwen2_5_vl" else (gaps > 10).all()


@BOTH
def test_a_file_shows_what_its_frames_show(family, tmp_path):
    folder, file = frames(tmp_path / "clip"), tmp_path / "clip.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        for number in range(24):
            values = np.asarray(Image.open(folder / f"{number}.png"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode(None))
    both = [dialogue_of(family).ask([Media.VIDEO], videos=[path]) for path in (folder, file)]
    assert both[0].conversation.ids == both[1].conversation.ids
    np.testing.assert_array_equal(both[0].videos[0].patches.values, both[1].videos[0].patches.values)
    answers = [pipeline(family)("what happens?", videos=[[path]], **OPTIONS).ids for path in (folder, file)]
    assert answers[0] == answers[1]
