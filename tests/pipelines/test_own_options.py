"""A checkpoint's own options of drawing hold wherever nothing is given."""

import dataclasses

import pytest
from PIL import Image

from mammoth_jax.pipelines import edit
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.options import parse_options
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.processing.prompts import DEFAULT_NEGATIVE_PROMPT
from tests.tiny_model import tiny_pipeline

OWN = {"negative_prompt": "", "num_inference_steps": 7}


@pytest.fixture(scope="module")
def loaded():
    found = tiny_pipeline().loaded
    return dataclasses.replace(found, settings=dataclasses.replace(found.settings, drawing=OWN))


def test_what_is_given_wins_over_the_checkpoints_own_and_that_over_the_releases():
    assert parse_options({}).negative_prompt == DEFAULT_NEGATIVE_PROMPT
    assert parse_options({}, OWN).negative_prompt == ""
    given = parse_options({"negative_prompt": "blurry"}, OWN)
    assert (given.negative_prompt, given.num_inference_steps, given.guidance_scale) == ("blurry", 7, 9.0)


def test_pictures_are_drawn_with_them(loaded, monkeypatch):
    asked = []
    monkeypatch.setattr(
        TextToImagePipeline, "draw", lambda self, requests, settings, *rest, **more: asked.append(settings)
    )
    TextToImagePipeline(loaded)("a cat")
    TextToImagePipeline(loaded)("a cat", negative_prompt="dark")
    assert [(one.negative_prompt, one.num_inference_steps) for one in asked] == [("", 7), ("dark", 7)]


def test_edits_are_drawn_with_them(loaded, monkeypatch):
    asked = []

    def parsed(given, own):
        asked.append(parse_options(given, own))
        raise StopIteration

    monkeypatch.setattr(edit, "parse_options", parsed)
    with pytest.raises(StopIteration):
        EditPipeline(loaded)(Image.new("RGB", (64, 64)), "darker", guidance_scale=2.0)
    assert (asked[0].negative_prompt, asked[0].guidance_scale) == ("", 2.0)
