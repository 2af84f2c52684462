"""Scripts that are there to be copied run as they stand."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.processing.generation_config import drawing_of_folder
from mammoth_jax.processing.prompts import SYSTEM_PROMPT
from mammoth_jax.processing.tokenizer import Tokenizer
from tests.script_module import script_module

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_sampling_script_draws_with_the_shipped_model(tmp_path, monkeypatch):
    out = tmp_path / "picture.png"
    words = ["--steps", "1", "--num-images", "1", "--mesh", "data=1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["sample_text_to_image.py", *words])
    runpy.run_path(str(SCRIPTS / "sample_text_to_image.py"), run_name="__main__")
    assert Image.open(out).size == (64, 64)


def test_learned_words_know_the_layouts_and_carry_the_drawing_options_of_their_model(tmp_path, monkeypatch):
    out = tmp_path / "words"
    words = ["--texts", "300", "--out", str(out), "--drawing", "negative_prompt=", "num_inference_steps=25"]
    words += ["--temperature", "0.7"]
    monkeypatch.setattr("sys.argv", ["text_tokenizer.py", *words])
    runpy.run_path(str(SCRIPTS / "text_tokenizer.py"), run_name="__main__")
    assert drawing_of_folder(out) == {"negative_prompt": "", "num_inference_steps": 25}
    assert json.loads((out / "t2i_generation_config.json").read_text())["temperature"] == 0.7
    backbone = MammothConfig.from_preset("nano").backbone
    tokenizer = Tokenizer.from_folder(
        out, family=backbone.tokenizer_family, gen_vocab_start=backbone.decoder.gen_vocab_start_index
    )
    words = SYSTEM_PROMPT.split()
    assert len(tokenizer.encode(SYSTEM_PROMPT)) == len(words) + 1  # a token a word, and the full stop


def test_words_that_cannot_be_learned_are_refused_in_a_line(tmp_path, monkeypatch, capsys):
    for words, reason in (
        (["--preset", "none"], "none"),
        (["--texts", "1"], "ranks"),
        (["--temperature", "0"], "more than 0"),
    ):
        monkeypatch.setattr("sys.argv", ["text_tokenizer.py", "--out", str(tmp_path / "words"), *words])
        with pytest.raises(SystemExit):
            runpy.run_path(str(SCRIPTS / "text_tokenizer.py"), run_name="__main__")
        assert reason in capsys.readouterr().err and not (tmp_path / "words").exists()


def test_the_teacher_of_the_semantic_loss_is_trained_once_and_kept_to_its_steps(tmp_path):
    script = script_module("semantic_alignment")
    folder = script.train_teacher(tmp_path, 2)
    assert {file.suffix for file in folder.iterdir()} >= {".json", ".safetensors"}
    assert script.train_teacher(tmp_path, 2) == folder
    with pytest.raises(InputError, match=r"run\.steps was 2, is 3"):
        script.train_teacher(tmp_path, 3)


def test_a_probe_reads_what_vectors_say_and_nothing_else():
    script = script_module("semantic_alignment")
    labels = np.arange(400) % 4  # 0: background
    vectors = np.eye(4, dtype=np.float32)[labels] + np.random.default_rng(0).normal(0, 0.1, (400, 4))
    assert script.probe((vectors, labels), (vectors, labels)) > 0.95
    assert script.probe((vectors[::-1], labels), (vectors, labels)) < 0.6


@pytest.mark.parametrize("word", ["scale=3", "guidance_scale", "num_inference_steps=few"])
def test_a_drawing_option_that_is_none_is_refused_before_anything_is_learned(
    word, tmp_path, monkeypatch, capsys
):
    words = ["--out", str(tmp_path / "words"), "--drawing", word]
    monkeypatch.setattr("sys.argv", ["text_tokenizer.py", *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPTS / "text_tokenizer.py"), run_name="__main__")
    assert "expected NAME=VALUE" in capsys.readouterr().err and not (tmp_path / "words").exists()
