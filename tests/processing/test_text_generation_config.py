"""The settings for text that a checkpoint ships: what each value means, and which are refused by name."""

import json

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.text_generation_config import TEXT_FILE, TextGenerationSettings

END = 1000


def read(folder, content) -> TextGenerationSettings:
    (folder / TEXT_FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return TextGenerationSettings.from_folder(folder, END)


def test_without_a_file_the_best_token_is_taken(tmp_path):
    settings = TextGenerationSettings.from_folder(tmp_path, END)
    assert settings == TextGenerationSettings()
    assert not settings.do_sample and settings.max_new_tokens == 512 and settings.stop_ids == ()


def test_values_of_a_file(tmp_path):
    values = {
        "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05,
        "eos_token_id": [7, 9, 7], "max_new_tokens": 2048, "pad_token_id": 3, "transformers_version": "4.57.1",
    }  # fmt: skip
    assert read(tmp_path, values) == TextGenerationSettings(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05, stop_ids=(7, 9),
        max_new_tokens=2048,
    )  # fmt: skip


def test_absent_values_are_the_formats_and_null_switches_off(tmp_path):
    settings = read(tmp_path, {"do_sample": True, "eos_token_id": 7})
    assert settings == TextGenerationSettings(do_sample=True, top_k=50, stop_ids=(7,))
    nulls = dict.fromkeys(
        ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "eos_token_id")
    )
    assert read(tmp_path, {**nulls, "max_new_tokens": None}) == TextGenerationSettings()
    assert read(tmp_path, {"top_k": 0}).top_k is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[1]", "expected a JSON object"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; expected true or false"),
        ({"temperature": -1}, "temperature is -1; expected a number"),
        ('{"temperature": NaN}', "temperature is nan"),
        ({"top_k": 1.5}, "top_k is 1.5; expected a whole number"),
        ({"top_k": True}, "top_k is True"),
        ({"top_p": 0}, "top_p is 0; expected more than 0"),
        ({"top_p": 1.1}, r"top_p is 1.1; expected"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"eos_token_id": "<|im_end|>"}, "eos_token_id is '<|im_end|>'; expected an id"),
        ({"eos_token_id": [1, END]}, r"eos_token_id is \[1, 1000\]; expected .* 0 to 999"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_file_key_and_value(content, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, content)
    assert TEXT_FILE in str(error.value) and "\n" not in str(error.value)
