"""``chat`` and ``edit`` with input that cannot be used: exit code 2 and one line that says what to do."""

import functools
from pathlib import Path

import pytest
from PIL import Image

from checkpoint_convert.init_checkpoint import init_checkpoint
from mammoth_jax.cli import chat, edit
from mammoth_jax.cli.main import main
from mammoth_jax.pipelines.chat import ChatPipeline
from mammoth_jax.pipelines.chat_session import ChatSession
from mammoth_jax.pipelines.edit import EditPipeline
from tests.checkpoint_convert.folders import drop_tensors
from tests.tiny_model import tiny_pipeline, tiny_preview_config


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The commands' model is the tiny one, unless a folder is named."""
    own = edit.load_pipeline
    monkeypatch.setattr(chat, "load_session", lambda args: ChatSession(ChatPipeline(loaded())))
    monkeypatch.setattr(
        edit, "load_pipeline", lambda args: own(args) if args.model else EditPipeline(loaded())
    )


@functools.cache
def loaded():
    return tiny_pipeline().loaded


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with inputs of every kind."""
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    Image.new("RGB", (20000, 20)).save(tmp_path / "strip.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image", "broken.png", "what?"], "broken.png: "),
        (["--image", "none.png", "what?"], "none.png: no such file"),
        (
            ["--image", "strip.png", "what?"],
            "20000x20 pixels: one side is more than 200 times the other; crop",
        ),
        (["--video", "empty", "what?"], "no frames in this folder; expected pictures"),
        (["a" * 40000], "at most 32768 fit the cache; shorten it"),
        (["hi", "--max-new-tokens", "40000"], "ask for fewer tokens"),
        (["hi", "--repetition-penalty", "0"], "repetition_penalty 0.0: expected more than 0"),
        (["hi", "--temperature", "nan"], "temperature nan"),
    ],
)
def test_chat_refuses(words, said, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert main(["chat", "--preset", "nano", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out.strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image", "broken.png"], "broken.png: "),
        (["--image", "strip.png"], "20000x20 pixels: one side is more than 200 times the other; crop"),
        (["--image", "good.png"] * 6, "at most 5 fit this model; leave some out"),
    ],
)
def test_edit_refuses(words, said, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert main(["edit", "--preset", "nano", "make it red", *words, "--out", "out"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out.strip()


def test_editing_with_the_preview_names_the_switch(files, capsys):
    init_checkpoint(tiny_preview_config(), files / "preview", seed=3)
    drop_tensors(files / "preview", "gen_tokenizer.")
    words = ["--model", files / "preview", "--image", files / "good.png", "--out", files / "out", "redder"]
    assert main(["edit", *map(str, words)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "has no mammothtok_encoder, mammothtok_codebook" in last and "--no-tokens" in last
