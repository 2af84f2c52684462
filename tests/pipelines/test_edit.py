"""Each form of a reference matters when it is on and not when it is off; clear errors."""

import dataclasses
import functools
import gc

import jax
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.pipelines import text_to_image
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import Picture
from mammoth_jax.pipelines.reference_inputs import reference_latents
from mammoth_jax.pipelines.references import Channels, read_reference
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from tests.tiny_model import tiny_pipeline

OPTIONS = {
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "temperature": 0.0,
    "output_type": "latent",
    "seed": 3,
}
OFF = {"use_vision": False, "use_tokens": False, "use_latents": False}
CHANNELS = ("use_vision", "use_tokens", "use_latents")


@functools.cache
def pipeline() -> EditPipeline:
    return EditPipeline(tiny_pipeline().loaded)


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def latents(seed: int, *on: str) -> np.ndarray:
    """What is drawn from a reference in the forms that are on."""
    return inputs(seed, *on)["drawn"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_form_that_is_on_matters(channel):
    first, second = latents(0, channel), latents(1, channel)
    assert np.abs(first - second).max() > 1e-5
    assert np.abs(first - latents(0)).max() > 1e-5


@functools.cache
def inputs(seed: int, *on: str) -> dict[str, np.ndarray]:
    """What a reference in the forms that are on puts into the programs; absent where nothing is put.

    ``use_vision``: features that take the placeholders' places; ``use_tokens``: the prompt's visual tokens;
    ``use_latents``: patches that the diffusion transformer gets; ``drawn``: what comes out.
    """
    settings = pipeline().loaded.settings
    seen: dict[str, np.ndarray] = {}
    encode, paint = text_to_image.encode_program, text_to_image.paint_program

    def encoding(decoder, ids, lengths, *, plan, pictures=None):
        words = ids[0, : lengths[0]]
        codes = words[(words >= settings.visual_start) & (words < settings.visual_end)]
        if len(codes):
            seen["use_tokens"] = np.asarray(codes)
        if pictures is not None:
            slots = np.asarray(pictures.slots)
            seen["use_vision"] = np.asarray(pictures.features.tokens[0])[slots[slots >= 0]]
        return encode(decoder, ids, lengths, plan=plan, pictures=pictures)

    def painting(*args, **kwargs):
        references = args[-1]
        if references is not None:
            count = int(np.prod(references.sizes[0, 0]))
            seen["use_latents"] = np.asarray(references.patches)[0, 0, :count]
        return paint(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_image, "encode_program", encoding)
        patch.setattr(text_to_image, "paint_program", painting)
        drawn = pipeline()(picture(seed), "make it red", **{name: name in on for name in CHANNELS}, **OPTIONS)
    return seen | {"drawn": drawn.images[0]}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_changed_reference_changes_the_input_of_the_form_that_is_on_and_there_is_no_other(channel):
    first, second = inputs(0, channel), inputs(1, channel)
    assert set(first) == set(second) == {channel, "drawn"}
    assert first[channel].shape == second[channel].shape and (first[channel] != second[channel]).any()


def test_with_all_forms_off_no_reference_is_put_in():
    assert set(inputs(0)) == set(inputs(1)) == {"drawn"}


def test_each_form_alone_is_put_in_as_it_is_among_all():
    everything = inputs(0, *CHANNELS)
    for channel in CHANNELS:
        np.testing.assert_allclose(inputs(0, channel)[channel], everything[channel], atol=1e-6)


def test_with_all_forms_off_the_reference_plays_no_part_and_it_is_text_to_image():
    drawn = tiny_pipeline()("make it red", height=16, width=16, **OPTIONS).images[0]
    assert np.array_equal(latents(0), drawn) and np.array_equal(latents(1), drawn)


@pytest.mark.parametrize("number", range(3))
def test_a_form_that_is_off_is_not_made_and_the_others_do_not_notice(number):
    loaded = pipeline().loaded
    on = [index != number for index in range(3)]
    with jax.set_mesh(loaded.mesh):
        some, everything = (read_reference(loaded, picture(0), Channels(*c)) for c in (on, [True] * 3))
    made = [some.patches, some.codes, some.latents]
    assert [form is not None for form in made] == on
    if some.patches is not None and everything.patches is not None:
        assert np.array_equal(some.patches.values, everything.patches.values)
    if some.codes is not None:
        assert np.array_equal(some.codes, everything.codes)
    if some.latents is not None:
        assert np.array_equal(some.latents, everything.latents)


def test_edits_with_one_callback_share_a_program_that_does_not_keep_the_pipeline(monkeypatch):
    asked = []

    def generate(self, requests, *_, on_step, **__):
        asked.append(on_step)
        return [Picture(request, np.zeros((16, 16, 3), np.uint8), None, None) for request in requests]

    monkeypatch.setattr(TextToImagePipeline, "generate", generate)
    seen = []

    def watch(pipeline, step, times, values):
        seen.append((pipeline, step))

    pipe = EditPipeline(pipeline().loaded)
    for words in ("make it red", "make it blue"):
        pipe(picture(0), words, callback_on_step_end=watch, **OPTIONS | OFF)
    first, second = asked  # static arguments of the program
    assert first == second and hash(first) == hash(second)
    first(np.int32(1), np.zeros(1), np.zeros((1, 4, 16)))
    assert seen == [(pipe.drawing, 1)]
    seen.clear()
    del pipe
    gc.collect()
    assert first.pipeline() is None


def test_references_of_two_sizes_and_rows_with_one_or_two_in_one_batch():
    rows = [[picture(0), picture(1, 24, 40)], picture(2, 16, 24)]
    prompts = ["put the first into the second", "make it blue"]
    out = pipeline()(rows, prompts, **OPTIONS)
    assert [p.request.size.pixels for p in out.pictures] == [(16, 16), (24, 16)]
    assert [len(p.request.references) for p in out.pictures] == [2, 1]
    packed = reference_latents(pipeline().loaded.config.dit, [p.request.references for p in out.pictures])
    assert packed is not None
    assert np.asarray(packed.sizes).tolist() == [[[2, 2], [5, 3]], [[3, 2], [0, 0]]]
    alone = pipeline()(rows[1], prompts[1], **OPTIONS)
    assert np.array_equal(out.pictures[1].codes, alone.pictures[0].codes)
    assert np.abs(out.images[1] - alone.images[0]).max() < 1e-4


@pytest.mark.slow
def test_the_size_is_the_first_references_or_the_lasts_or_what_is_asked():
    edit, pictures = pipeline(), [picture(0, 16, 24), picture(1, 33, 17)]
    options = OPTIONS | OFF | {"mode": "diffusion"}

    def size(**asked):
        return edit(pictures, "x", **asked, **options).pictures[0].request.size.pixels

    assert size() == (24, 16)
    assert size(size_from="last") == (16, 32)
    assert size(height=16, width=16) == (16, 16)


def test_the_releases_condition_is_that_of_a_pass_without_pixels():
    loaded = with_edit_condition(pipeline().loaded, "release")
    released, own = (
        EditPipeline(model)(picture(0), "make it red", use_tokens=False, use_latents=False, **OPTIONS)
        for model in (loaded, pipeline().loaded)
    )
    assert np.array_equal(released.pictures[0].codes, own.pictures[0].codes)
    assert np.abs(released.images[0] - own.images[0]).max() > 1e-5


def with_edit_condition(loaded: LoadedModel, name: str) -> LoadedModel:
    config = loaded.config
    model = tiny_pipeline().loaded.model
    model.config = dataclasses.replace(
        config, condition=dataclasses.replace(config.condition, edit_condition=name)
    )
    return dataclasses.replace(loaded, model=model)


@pytest.mark.parametrize(
    ("image", "kwargs", "words"),
    [
        ([picture(0)] * 6, {}, "6 reference pictures for prompt 0: at most 5 fit"),
        ([], {}, "no reference picture for prompt 0"),
        ([picture(0), picture(1)], {"prompt": ["a", "b", "c"]}, "references for 2 prompts, but there are 3"),
        (picture(0), {"size_from": "second"}, "size_from 'second'"),
        (picture(0), {"height": 20}, "height 20"),
        (picture(0), {"image_guidance": 2.0}, "unknown option 'image_guidance'"),
        (picture(0, 1, 201), {}, "one side is more than 200 times the other"),
    ],
)
def test_bad_arguments_are_named(image, kwargs, words):
    with pytest.raises(InputError, match=words):
        pipeline()(image, **{"prompt": "x", "num_inference_steps": 1} | kwargs)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("vision", "use_vision.* has no vision_tower"),
        ("mammothtok", "use_tokens.* has no mammothtok_encoder"),
    ],
)
def test_a_missing_part_is_named_where_its_form_is_on(attribute, words):
    lacking = EditPipeline(tiny_pipeline().loaded)
    setattr(lacking.loaded.model, attribute, None)
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        lacking(picture(0), "x")
