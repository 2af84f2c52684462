"""A saved pipeline is the folder that it was loaded from, bit for bit; random ones say how to be written."""

import json

import pytest
from safetensors.numpy import load_file

from checkpoint_convert.init_checkpoint import init_checkpoint
from checkpoint_convert.to_jax import to_jax
from mammoth_jax.core.errors import InputError
from mammoth_jax.pipelines.loading import load_model
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.processing.text_generation_config import TEXT_FILE, TextGenerationSettings
from tests.tiny_model import tiny_config, tiny_pipeline


def tensors(folder) -> dict:
    return {name: x for file in sorted(folder.glob("*.safetensors")) for name, x in load_file(file).items()}


def test_a_saved_pipeline_is_the_folder_it_came_from(tmp_path):
    init_checkpoint(tiny_config(), tmp_path / "released", seed=3)
    TextToImagePipeline.from_pretrained(tmp_path / "released").save_pretrained(tmp_path / "saved")
    before, after = tensors(tmp_path / "released"), tensors(tmp_path / "saved")
    assert before.keys() == after.keys() and all((before[n] == after[n]).all() for n in before)
    for name in (
        "config.json",
        "mammothu.tiktoken",
        "t2i_generation_config.json",
        "preprocessor_config.json",
    ):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "released" / name).read_bytes()


def test_settings_for_text_come_with_the_folder_also_when_converted(tmp_path):
    init_checkpoint(tiny_config(), tmp_path / "released", seed=3)
    settings = {
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 7,
        "eos_token_id": [1, 2],
        "max_new_tokens": 9,
    }
    (tmp_path / "released" / TEXT_FILE).write_text(json.dumps(settings))
    to_jax(tmp_path / "released", tmp_path / "converted")
    expected = TextGenerationSettings(
        do_sample=True, temperature=0.5, top_k=7, stop_ids=(1, 2), max_new_tokens=9
    )
    for folder in ("released", "converted"):
        assert load_model(tmp_path / folder, parts=("text_decoder",)).text_settings == expected


def test_a_checkpoint_without_a_tokenizer_file_is_refused_by_name(tmp_path):
    init_checkpoint(tiny_config(), tmp_path / "released", seed=3)
    (tmp_path / "released" / "mammothu_vision_tokens.txt").unlink()
    with pytest.raises(InputError, match=r"mammothu_vision_tokens\.txt is missing"):
        TextToImagePipeline.from_pretrained(tmp_path / "released")


def test_a_random_model_says_how_to_write_a_folder(tmp_path):
    with pytest.raises(InputError, match="mammoth-jax init"):
        tiny_pipeline().save_pretrained(tmp_path / "saved")


def test_a_model_loaded_in_part_is_not_saved_as_if_it_were_whole(tmp_path):
    init_checkpoint(tiny_config(), tmp_path / "released", seed=3)
    part = TextToImagePipeline.from_pretrained(tmp_path / "released", parts=("text_decoder", "vae"))
    with pytest.raises(InputError, match=r"dit.* were not loaded"):
        part.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
