"""Training drops conditions for the negative prompt that the checkpoint is sampled with."""

import json

import pytest

from mammoth_jax.data.packing.sequences import negative_sequence
from mammoth_jax.processing.generation_config import TEXT_TO_IMAGE_FILE, drawing_of_folder
from mammoth_jax.processing.prompts import DEFAULT_NEGATIVE_PROMPT, negative_prompt
from mammoth_jax.training.joint import joint_geometry
from mammoth_jax.training.joint_files import read_words
from tests.training.tiny_joint import stage


@pytest.mark.parametrize(
    ("drawing", "expected"), [({"negative_prompt": ""}, ""), ({}, DEFAULT_NEGATIVE_PROMPT)]
)
def test_a_dropped_condition_is_the_folders_own_negative_prompt(tmp_path, drawing, expected):
    (tmp_path / TEXT_TO_IMAGE_FILE).write_text(json.dumps({"drawing": drawing}))
    config = stage(tmp_path)
    tokenizer = read_words(config.model, None)
    geometry = joint_geometry(config, tokenizer, config.data, drawing_of_folder(tmp_path))
    assert negative_sequence(geometry).ids.tolist() == negative_prompt(tokenizer, expected)
