"""Edits of mixed sizes fall into few buckets: few programs, little padding, the same pictures."""

import functools

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.pipelines import text_to_image
from mammoth_jax.pipelines.edit import EditPipeline
from mammoth_jax.pipelines.output import TextToImageOutput
from mammoth_jax.pipelines.programs import draw_program, encode_program, paint_program
from mammoth_jax.pipelines.shape_plan import ShapePlan, plan_shapes
from tests.tiny_model import tiny_pipeline

OPTIONS = {
    "num_inference_steps": 1,
    "guidance_scale": 3.0,
    "temperature": 0.0,
    "negative_prompt": "",
    "output_type": "latent",
}
# (width, height) of the edit and of its references
EDITS = [
    ((64, 64), [(64, 64)]),
    ((64, 48), [(64, 56), (64, 64)]),
    ((16, 16), [(24, 16)]),
    ((48, 64), [(64, 56)]),
    ((56, 64), [(64, 64), (40, 64)]),
    ((16, 24), [(16, 16), (24, 16)]),
    ((64, 56), [(64, 64)]),
    ((64, 56), [(40, 64), (64, 64)]),
    ((24, 16), [(16, 16)]),
    ((56, 56), [(64, 64)]),
]


def picture(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def edit(pipeline: EditPipeline, numbers: list[int], **options) -> TextToImageOutput:
    """Edits by number, drawn in one call."""
    return pipeline(
        [[picture(*size, seed=10 * n + i) for i, size in enumerate(EDITS[n][1])] for n in numbers],
        ["red"] * len(numbers),
        width=[EDITS[n][0][0] for n in numbers],
        height=[EDITS[n][0][1] for n in numbers],
        seed=numbers,
        **OPTIONS | options,
    )


@functools.cache
def ten() -> tuple[EditPipeline, TextToImageOutput, list[ShapePlan], dict[str, int]]:
    """All ten in one call: the pipeline, what it drew, its plans, and how many programs each step compiled."""
    pipeline = EditPipeline(tiny_pipeline().loaded)
    programs = {"prefill": encode_program, "tokens": draw_program, "diffusion": paint_program}
    plans: list[ShapePlan] = []

    def plan(*args, **kwargs) -> ShapePlan:
        plans.append(plan_shapes(*args, **kwargs))
        return plans[-1]

    before = {name: program._cache_size() for name, program in programs.items()}
    text_to_image.plan_shapes = plan
    try:
        out = edit(pipeline, list(range(10)))
    finally:
        text_to_image.plan_shapes = plan_shapes
    return pipeline, out, plans, {name: p._cache_size() - before[name] for name, p in programs.items()}


@pytest.mark.slow
def test_ten_edits_of_mixed_sizes_compile_one_program_of_each_kind_a_bucket():
    _, _, (plan,), compiled = ten()
    assert len(plan.buckets) <= 4
    assert plan.decoded_padding <= 0.35 and plan.diffused_padding <= 0.35, str(plan)
    assert compiled == dict.fromkeys(("prefill", "tokens", "diffusion"), len(plan.buckets))


@pytest.mark.slow
def test_pictures_come_in_the_order_asked_and_as_if_drawn_alone():
    pipeline, out, _, _ = ten()
    assert [p.request.size.pixels[::-1] for p in out.pictures] == [size for size, _ in EDITS]
    assert [p.request.seed for p in out.pictures] == list(range(10))
    with_another_size = 7
    alone = edit(EditPipeline(pipeline.loaded), [with_another_size])
    assert np.array_equal(alone.pictures[0].codes, out.pictures[with_another_size].codes)
    assert np.abs(alone.images[0] - out.images[with_another_size]).max() < 1e-4


@pytest.mark.slow
def test_another_mixture_of_like_sizes_compiles_nothing_new():
    pipeline = ten()[0]
    before = encode_program._cache_size(), draw_program._cache_size(), paint_program._cache_size()
    edit(pipeline, [9, 7, 8, 4, 6, 5, 1, 2, 3])
    assert before == (encode_program._cache_size(), draw_program._cache_size(), paint_program._cache_size())
