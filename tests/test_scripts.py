"""Scripts that are there to be copied run as they stand."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from mammoth_jax.models.config import MammothConfig
from mammoth_jax.processing.generation_config import drawing_of_folder
from mammoth_jax.processing.prompts import SYSTEM_PROMPT
from mammoth_jax.processing.tokenizer import Tokenizer

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
    monkeypatch.setattr("sys.argv", ["text_tokenizer.py", *words])
    runpy.run_path(str(SCRIPTS / "text_tokenizer.py"), run_name="__main__")
    assert drawing_of_folder(out) == {"negative_prompt": "", "num_inference_steps": 25}
    backbone = MammothConfig.from_preset("nano").backbone
    tokenizer = Tokenizer.from_folder(
        out, family=backbone.tokenizer_family, gen_vocab_start=backbone.decoder.gen_vocab_start_index
    )
    words = SYSTEM_PROMPT.split()
    assert len(tokenizer.encode(SYSTEM_PROMPT)) == len(words) + 1  # a token a word, and the full stop


@pytest.mark.parametrize("word", ["scale=3", "guidance_scale", "num_inference_steps=few"])
def test_a_drawing_option_that_is_none_is_refused_before_anything_is_learned(
    word, tmp_path, monkeypatch, capsys
):
    words = ["--out", str(tmp_path / "words"), "--drawing", word]
    monkeypatch.setattr("sys.argv", ["text_tokenizer.py", *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPTS / "text_tokenizer.py"), run_name="__main__")
    assert "expected NAME=VALUE" in capsys.readouterr().err and not (tmp_path / "words").exists()
