"""Drawing a benchmark with a model: every picture as it is drawn alone, whatever is drawn beside it."""

import functools

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.png import read_settings
from mammoth_jax.evals import pipeline_draw
from mammoth_jax.evals.jobs import Job, Request, SourcePicture, draw_jobs
from mammoth_jax.evals.pipeline_draw import PipelineDraw
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.pipelines.think_then_draw import ThinkOptions
from tests.evals.stand_in import silent
from tests.tiny_model import tiny_pipeline

OPTIONS = {"num_inference_steps": 2, "guidance_scale": 3.0}


@functools.cache
def pipeline():
    return tiny_pipeline()


def drawer(**changes) -> PipelineDraw:
    return PipelineDraw(
        pipeline(),
        TextToImageOptions(**OPTIONS),
        lambda picture: {"prompt": picture.request.prompt, "seed": picture.request.seed},
        size=(16, 16),
        batch_size=2,
        **changes,
    )


def source(seed: int) -> SourcePicture:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return SourcePicture(f"s{seed}", lambda: Image.fromarray(pixels))


def drawn(draw, requests):
    found = dict(draw(requests))
    return [np.asarray(found[number].image) for number in range(len(requests))]


def furthest(one, other) -> int:
    """The largest difference of two pictures; one of 1 is rounding, since launches differ."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.slow
def test_pictures_do_not_depend_on_those_beside_them():
    requests = [Request(prompt, seed) for prompt in ("a", "a longer prompt, by far") for seed in (0, 1)]
    whole = drawn(drawer(), requests)
    assert len({picture.tobytes() for picture in whole}) == 4
    rest = drawn(drawer(), requests[1:])
    assert all(furthest(a, b) <= 1 for a, b in zip(whole[1:], rest, strict=True))
    alone = pipeline()("a", height=16, width=16, seed=1, output_type="np", **OPTIONS).images[0]
    assert furthest(whole[1], alone) <= 1


@pytest.mark.slow
def test_edits_see_their_own_sources_and_few_are_held_at_once(monkeypatch):
    monkeypatch.setattr(pipeline_draw, "MOST_SOURCE_PIXELS", 2 * 16 * 16)
    requests = [Request("edit", 0, source(seed)) for seed in (0, 1, 0, 2)]
    seen = drawn(drawer(), requests)
    assert furthest(seen[0], seen[2]) <= 1 < furthest(seen[0], seen[1])
    edit = EditPipeline(pipeline().loaded)
    picture = requests[3].source.open()
    alone = edit(picture, "edit", height=16, width=16, output_type="np", **OPTIONS).images[0]
    assert furthest(seen[3], alone) <= 1


@pytest.mark.slow
def test_files_hold_settings_and_reasoning(tmp_path):
    job = Job("a.png", (Request("think of it", 4),))
    draw_jobs([job], tmp_path, drawer(think=ThinkOptions(max_new_tokens=3)), silent)
    settings = read_settings(tmp_path / "a.png")
    assert settings["seed"] == 4 and "reasoning" in settings
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == settings["reasoning"]
