"""How a checkpoint draws unless one says otherwise: kept in its folder, read from it."""

import json

import pytest

from checkpoint_convert.init_checkpoint import placeholder_ranks, write_tokenizer
from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.generation_config import (
    TEXT_TO_IMAGE_FILE,
    GenerationSettings,
    drawing_of_folder,
)
from tests.tiny_model import tiny_config

RELEASED = {"eol_token_id": 1024, "visual_token_start_id": 1032, "visual_token_end_id": 512}


def test_a_folder_has_its_own_options_of_drawing(tmp_path):
    config, own = tiny_config(), {"negative_prompt": "", "guidance_scale": 3, "num_inference_steps": 20}
    write_tokenizer(tmp_path, config, placeholder_ranks(config), own)
    decoder = config.backbone.decoder
    last = decoder.gen_vocab_start_index + decoder.gen_vocab_size
    assert GenerationSettings.from_folder(tmp_path, last).drawing == own == drawing_of_folder(tmp_path)


def test_released_folders_have_none(tmp_path):
    config = tiny_config()
    write_tokenizer(tmp_path, config, placeholder_ranks(config))
    assert "drawing" not in json.loads((tmp_path / TEXT_TO_IMAGE_FILE).read_text())
    assert GenerationSettings.from_released(RELEASED, 1600).drawing == {} == drawing_of_folder(tmp_path)
    assert drawing_of_folder(tmp_path / "nothing") == {} == drawing_of_folder(None)


@pytest.mark.parametrize(
    ("drawing", "problem"),
    [
        (None, None),
        ("much", "expected an object of some of negative_prompt"),
        ({"steps": 3}, "expected an object of some of negative_prompt"),
        ({"negative_prompt": 3}, "drawing.negative_prompt is 3; expected text"),
        ({"num_inference_steps": 2.5}, "drawing.num_inference_steps is 2.5; expected a whole number"),
        ({"guidance_scale": True}, "drawing.guidance_scale is True; expected a number"),
    ],
)
def test_unusable_options_are_refused(tmp_path, drawing, problem):
    values = {**RELEASED, "drawing": drawing}
    if problem is None:
        assert GenerationSettings.from_released(values, 1600).drawing == {}
        return
    with pytest.raises(InputError, match=problem):
        GenerationSettings.from_released(values, 1600)
    (tmp_path / TEXT_TO_IMAGE_FILE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=problem):
        drawing_of_folder(tmp_path)
