"""Reasoning before a picture: when it ends, what it conditions, and what unconditional rows see of it."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.pipelines import text_to_image
from mammoth_jax.pipelines.batching import Reasoning, prompt_rows
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.pipelines.think_then_draw import ThinkOptions, thinking_plan
from mammoth_jax.processing.prompts import answer_opening, thinking_prompt
from mammoth_jax.processing.special_tokens import IM_END, IMAGE_START
from tests.tiny_model import tiny_pipeline

OPTIONS = {"num_inference_steps": 2, "guidance_scale": 3.0, "temperature": 0.0, "output_type": "latent"}
SIZE = {"height": 16, "width": 16}
THINK = ThinkOptions(max_new_tokens=8)


@functools.cache
def pipeline() -> TextToImagePipeline:
    return tiny_pipeline()


def with_weight(name: str, change) -> TextToImagePipeline:
    """The pipeline with one weight changed."""
    loaded = pipeline().loaded
    weight = np.array(named_parameters(loaded.model)[name].get_value())
    model = with_parameters(loaded.model, {**arrays(loaded.model), name: np.asarray(change(weight))})
    return TextToImagePipeline(dataclasses.replace(loaded, model=model))


def arrays(model) -> dict[str, np.ndarray]:
    return {name: parameter.get_value() for name, parameter in named_parameters(model).items()}


def that_writes(token: str) -> TextToImagePipeline:
    """A pipeline whose first token of reasoning is a special token: one row of scores for it, whatever the state."""
    loaded = pipeline().loaded
    decoder, token_id = loaded.config.backbone.decoder, loaded.tokenizer.id_of(token)
    first, head = (decoder.gen_vocab_start_index, "gen_head") if token == IMAGE_START else (0, "head")
    # the states after the first of two opposite columns and after the second differ in sign: one of them wins
    for sign in (1, -1):

        def change(kernel, sign=sign):
            direction = np.ones(len(kernel), np.float32) * sign * 1e3
            kernel[:, token_id - first] = direction
            return kernel

        changed = with_weight(f"decoder.{head}.kernel", change)
        picture = changed("a cat", think=ThinkOptions(max_new_tokens=1), **SIZE, **OPTIONS).pictures[0]
        if picture.request.reasoning.ended_by != "budget":
            return changed
    raise AssertionError("neither sign wins")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))


def test_the_picture_follows_the_very_ids_that_were_written_and_draws_again_from_them():
    loaded = pipeline().loaded
    out = pipeline()("a red circle", think=THINK, seed=3, **SIZE, **OPTIONS)
    request = out.pictures[0].request
    assert request.reasoning is not None and len(request.reasoning.ids) == 8
    assert request.reasoning.ended_by == "budget"
    rows = prompt_rows(loaded.tokenizer, [request], negative="bad", guided=True, num_rows=1)
    before, opening = (
        thinking_prompt(loaded.tokenizer, ["a red circle"]),
        answer_opening(loaded.tokenizer, 2, 2),
    )
    image = opening[opening.index(loaded.tokenizer.id_of(IMAGE_START)) :]
    assert _row(rows, rows.prompt[0]) == [*before.ids, *request.reasoning.ids, *image]
    assert rows.answer_start[rows.prompt[0]] == before.answer_start
    assert _row(rows, rows.opening[0]) == opening
    assert rows.negative is not None
    assert not set(_row(rows, rows.negative[0])) & set(request.reasoning.ids) - set(before.ids)
    again = pipeline().draw([request], options(), output_type="latent")
    assert np.array_equal(again.pictures[0].codes, out.pictures[0].codes)
    assert np.array_equal(again.images[0], out.images[0])


def test_writing_stops_at_an_image_start_and_the_picture_has_the_grid_that_was_asked_for():
    out = that_writes(IMAGE_START)("a cat", think=THINK, grid=(3, 2), **SIZE, **OPTIONS).pictures[0]
    assert out.request.reasoning == Reasoning((), "", "image start")
    assert out.codes is not None and out.codes.shape == (2, 3)


@pytest.mark.slow
def test_a_turn_that_ends_without_an_image_start_is_drawn_all_the_same():
    out = that_writes(IM_END)("a cat", think=THINK, **SIZE, **OPTIONS).pictures[0]
    assert out.request.reasoning == Reasoning((), "", "end of turn")
    assert out.codes is not None and out.codes.shape == (2, 2)


def test_image_start_is_the_only_generation_token_that_reasoning_may_hold():
    plan, loaded = thinking_plan(pipeline().loaded), pipeline().loaded
    assert plan.generation_ids == (loaded.tokenizer.id_of(IMAGE_START),)
    assert set(plan.generation_ids) <= set(plan.stop_ids)


def test_with_the_visual_tokens_fixed_other_reasoning_changes_the_condition(monkeypatch):
    fixed = with_weight(
        "decoder.gen_head.kernel", np.zeros_like
    )  # equal scores: always the first visual token
    seen = []

    def paint(dit, refiner, positive, *args, **kwargs):
        seen.append(positive)
        return text_to_image_paint(dit, refiner, positive, *args, **kwargs)

    text_to_image_paint = text_to_image.paint_program
    monkeypatch.setattr(text_to_image, "paint_program", paint)
    plain = fixed.requests("a cat", 16, 16, None, 1, 0)[0]
    drawn = [
        fixed.draw([dataclasses.replace(plain, reasoning=reasoning)], options(), output_type="latent")
        for reasoning in (None, written("black fur"), written("white fur"))
    ]
    codes = [out.pictures[0].codes for out in drawn]
    assert np.array_equal(codes[0], codes[1]) and np.array_equal(codes[1], codes[2])
    counts = [int(np.sum(np.asarray(condition.text_mask))) for condition in seen]
    text = len(pipeline().loaded.tokenizer.encode("black fur"))
    assert counts[1] == counts[2] >= counts[0] + text
    black, white = (np.asarray(condition.text) for condition in seen[1:])
    assert np.abs(black - white).max() > 1e-3
    assert np.abs(np.asarray(seen[1].image) - np.asarray(seen[2].image)).max() > 1e-3
    assert np.abs(drawn[1].images[0] - drawn[2].images[0]).max() > 1e-5


@pytest.mark.slow
def test_greedy_reasoning_is_shared_by_the_pictures_of_a_prompt_and_sampled_reasoning_is_each_ones_own():
    def reasonings(**changes):
        think = dataclasses.replace(THINK, **changes)
        out = pipeline()(
            "a cat", think=think, num_images_per_prompt=2, **SIZE, **OPTIONS | {"mode": "diffusion"}
        )
        return [p.request.reasoning.ids for p in out.pictures]

    first, second = reasonings(temperature=0.0)
    assert first == second
    first, second = reasonings(temperature=2.0)
    assert first != second
    alone = pipeline()(
        "a cat",
        think=dataclasses.replace(THINK, temperature=2.0),
        seed=1,
        **SIZE,
        **OPTIONS | {"mode": "diffusion"},
    )
    assert alone.pictures[0].request.reasoning.ids == second


@pytest.mark.slow
def test_an_edits_reasoning_sees_its_references():
    edit = EditPipeline(pipeline().loaded)
    ids = [
        edit(picture(seed), "make it red", use_latents=False, think=THINK, **OPTIONS)
        .pictures[0]
        .request.reasoning
        for seed in (0, 1)
    ]
    assert ids[0] is not None and ids[1] is not None and ids[0].ids != ids[1].ids


def test_requests_with_and_without_reasoning_are_not_mixed():
    plain = pipeline().requests("a cat", 16, 16, None, 2, 0)
    mixed = [plain[0], dataclasses.replace(plain[1], reasoning=written("fur"))]
    with pytest.raises(InputError, match="with and without reasoning"):
        pipeline().draw(mixed, options())


@pytest.mark.parametrize(
    ("prompt", "think", "words"),
    [
        ("a cat", {"max_new_tokens": 0}, "max_new_tokens 0"),
        ("a cat", {"temperature": -1.0}, "temperature -1"),
        ("cat " * 5000, {}, "at most 4096 fit"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(prompt, think, words):
    with pytest.raises(InputError, match=words):
        pipeline()(prompt, think=ThinkOptions(**think), **SIZE, **OPTIONS)


def options() -> TextToImageOptions:
    return TextToImageOptions(num_inference_steps=2, guidance_scale=3.0, temperature=0.0)


def written(text: str) -> Reasoning:
    return Reasoning(tuple(pipeline().loaded.tokenizer.encode(text)), text, "image start")


def _row(rows, number: int) -> list[int]:
    return rows.ids[number, : rows.lengths[number]].tolist()
