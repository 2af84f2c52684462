"""Requests fall into few buckets with little padding, at the sizes of the released model; no model is needed."""

import dataclasses
import functools
import random

import numpy as np
import pytest

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.presets import load_preset
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.buckets import token_bucket
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.pipelines.picture_lengths import PictureLengths, picture_lengths
from mammoth_jax.pipelines.references import Reference
from mammoth_jax.pipelines.shape_plan import ShapePlan, ShapePolicy, plan_shapes
from mammoth_jax.processing.vision import Grid, Patches
from tests.tiny_model import random_model_words

OPTIONS = TextToImageOptions()
SIZES = [
    (1024, 1024),
    (832, 1216),
    (1216, 832),
    (768, 1344),
    (1344, 768),
    (512, 512),
    (896, 1152),
    (640, 1536),
]
SQUARE = PictureLengths(100, 4161, 80, (), 4096, 0, ("a", "opening", "negative"), 80, False)


@functools.cache
def dev() -> MammothConfig:
    return decode(MammothConfig, load_preset("dev"))


@functools.cache
def reference(height: int, width: int) -> Reference:
    """A reference of the released model's shapes; what it holds is not read."""
    patches = Patches(np.zeros((0, 1), np.float32), Grid(1, height // 32 * 2, width // 32 * 2))
    latents = np.broadcast_to(np.float32(0), (height // 8, width // 8, 16))
    return Reference(patches, np.zeros((height // 14, width // 14), np.int32), latents)


@functools.cache
def lengths(height: int, width: int, words: int, references: tuple[tuple[int, int], ...]) -> PictureLengths:
    request = PictureRequest(
        "x" * words, 0, picture_size(dev(), height, width), tuple(reference(*size) for size in references)
    )
    return picture_lengths(random_model_words(), request, OPTIONS)  # its patches merge as the released ones


def mixture(seed: int, count: int = 10) -> list[PictureLengths]:
    rng = random.Random(seed)
    return [
        lengths(
            *rng.choice(SIZES),
            rng.choice([5, 40, 120]),
            tuple(rng.choice(SIZES) for _ in range(rng.choice([1, 2]))),
        )
        for _ in range(count)
    ]


def test_what_a_request_takes_is_counted_from_its_prompt():
    found = lengths(832, 1216, 40, ((1024, 1024), (512, 512)))
    seen, tokens = 32 * 32 + 16 * 16, 73 * 74 + 9 + 36 * 37 + 9
    words = lengths(832, 1216, 40, ()).prompt
    assert found.prompt == words + seen + 2 * 2 + tokens
    assert (found.visual, found.target, found.seen) == (52 * 77 + 1, 52 * 76, seen)
    assert found.references == (64 * 64, 32 * 32)
    assert found.text == lengths(832, 1216, 40, ()).text + len("73*73") + len("36*36")
    assert lengths(832, 1216, 41, ()).text == lengths(832, 1216, 40, ()).text + 1


@pytest.mark.parametrize("seed", range(8))
def test_ten_edits_of_the_released_models_sizes_fall_into_few_buckets_with_little_padding(seed):
    plan = plan_shapes(mixture(seed))
    assert len(plan.buckets) <= 4
    assert plan.decoded_padding <= 0.35 and plan.diffused_padding <= 0.35
    assert sorted(n for bucket in plan.buckets for n in bucket.members) == list(range(10))


def test_paddings_are_shares_of_what_the_launches_compute():
    requests = mixture(0)
    plan = plan_shapes(requests)
    rows = [(bucket.shape, len(bucket.launches) * bucket.shape.rows) for bucket in plan.buckets]
    for name, padding in (("decoded", plan.decoded_padding), ("diffused", plan.diffused_padding)):
        computed = sum(count * getattr(shape, name) for shape, count in rows)
        assert padding == pytest.approx(1 - sum(getattr(each, name) for each in requests) / computed)
    for bucket in plan.buckets:
        for number in bucket.members:
            each, shape = requests[number], bucket.shape
            assert each.prompt <= shape.prompt and each.visual <= shape.visual and each.text <= shape.text
            assert each.target <= shape.target and max(each.references) <= shape.reference
            assert len(each.references) <= shape.num_references


def test_later_mixtures_mostly_run_what_is_compiled():
    known: set = set()
    new = []
    for seed in range(20):
        plan = plan_shapes(mixture(seed), known=known)
        assert len(plan.buckets) <= 4 and max(plan.decoded_padding, plan.diffused_padding) <= 0.35
        shapes = {bucket.shape for bucket in plan.buckets}
        new.append(len(shapes - known))
        known |= shapes
    assert sum(new[10:]) <= 3, new


def test_equal_requests_share_one_bucket_and_equal_launches():
    plan = plan_shapes([SQUARE] * 20, batch_size=8)
    assert [len(bucket.launches) for bucket in plan.buckets] == [3]
    assert [len(launch) for launch in plan.buckets[0].launches] == [6, 7, 7]
    assert plan.buckets[0].shape.rows == 8


def test_a_single_request_is_padded_to_the_ladder_only():
    (bucket,) = plan_shapes([SQUARE]).buckets
    assert bucket.shape.rows == 1 and bucket.shape.visual == token_bucket(SQUARE.visual) == 4608


def test_unlike_requests_are_kept_apart_until_there_are_too_many_buckets():
    unlike = [dataclasses.replace(SQUARE, visual=4**i, target=4**i, reads=(i,)) for i in range(3, 9)]
    for most in (6, 4, 1):
        assert len(plan_shapes(unlike, policy=ShapePolicy(most, padding=0.0)).buckets) == most
    assert len(plan_shapes(unlike).buckets) < 4


def test_a_long_negative_prompt_has_room():
    (bucket,) = plan_shapes([dataclasses.replace(SQUARE, negative=300)]).buckets
    assert bucket.shape.prompt >= 300 and bucket.shape.text >= 300


def test_prompts_read_twice_are_counted_once():
    (bucket,) = plan_shapes([SQUARE] * 3).buckets
    assert bucket.shape.prompts == 4  # prompt, opening, negative
    seen = dataclasses.replace(SQUARE, seen=100, shows=True)
    (bucket,) = plan_shapes([seen] * 3).buckets
    assert bucket.shape.seen == token_bucket(100)


def test_nothing_asked_is_nothing_planned():
    assert plan_shapes([]) == ShapePlan((), 0.0, 0.0)
    with pytest.raises(InputError, match="batch_size 0"):
        plan_shapes([SQUARE], batch_size=0)


def test_a_plan_can_be_read():
    assert "padding: backbone" in str(plan_shapes([SQUARE]))
