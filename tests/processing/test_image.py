"""Picture sizes and pixels: the recorded tables, the release's fault and its correction, and bad pictures."""

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.vectors.vae import COMPARED, RUNNERS
from mammoth_jax.evals.vectors.verify import check_case, read_set
from mammoth_jax.processing.image import SizeRule, preprocess, smart_resize, to_rgb

VECTORS = Path(__file__).parent.parent / "vectors" / "tokenizer"
NAME = "vae_image_processing"


@pytest.fixture
def case():
    return next(case for case in read_set(VECTORS) if case.name == NAME)


def misses(case) -> list[str]:
    report = check_case(case, RUNNERS[NAME], COMPARED[NAME])
    assert report.problem is None
    return [c.name for c in report.comparisons if not c.passed]


def test_recorded_sizes_and_pixels(case):
    assert misses(case) == []


def test_every_result_of_the_tables_is_compared(case):
    config = copy.deepcopy(case.config)
    config["get_new_height_width"][3]["new_width"] += 16
    config["smart_resize"][0]["result"][1] += 14
    failing = next(i for i, row in enumerate(config["smart_resize"]) if row["result"] == "ValueError")
    config["smart_resize"][failing]["result"] = [14, 14]
    config["released_defaults"]["max_pixels"] += 1
    config["resample"] = "bicubic"
    config["preprocess_examples"][0]["out"][3] += 1
    case.__dict__["config"] = config
    assert sorted(misses(case)) == [
        "@get_new_height_width.3.new_width",
        "@preprocess_examples.0.out.3",
        "@released_defaults.max_pixels",
        "@resample",
        "@smart_resize.0.result.1",
        f"@smart_resize.{failing}.result.0",
        f"@smart_resize.{failing}.result.1",
    ]


def test_sides_below_the_factor_become_the_factor():
    assert SizeRule().size(15, 40) == (16, 32)
    assert SizeRule(release_faults=True).size(15, 40) == (0, 32)
    assert preprocess(Image.new("RGB", (3, 5))).shape == (16, 16, 3)


def test_sizes_are_bounded_in_area_and_length_and_never_enlarged():
    rule = SizeRule(factor=8, max_pixels=256 * 256, max_side_length=300)
    for height, width in ((1000, 1000), (20, 4000), (4000, 20), (64, 72)):
        new_height, new_width = rule.size(height, width)
        assert new_height % 8 == new_width % 8 == 0
        assert new_height * new_width <= 256 * 256
        assert max(new_height, new_width) <= 300
        assert new_height <= max(height, 8)


def test_pixels_are_in_minus_one_to_one():
    picture = Image.fromarray(np.array([[[0, 255, 51]]], np.uint8).repeat(16, 0).repeat(16, 1))
    out = preprocess(picture)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[8, 8], [-1, 1, -0.6], atol=1e-6)


def test_transparent_pixels_are_white():
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    np.testing.assert_array_equal(np.asarray(to_rgb(picture)), [[[255, 0, 0], [255, 255, 255]]])


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_greys_of_sixteen_bits_become_the_upper_eight(order):
    picture = Image.fromarray(np.array([[0, 256 * 7 + 3, 40000, 65535]], order))
    assert picture.mode.startswith("I;16")
    assert np.asarray(to_rgb(picture)).tolist() == [[[value] * 3 for value in (0, 7, 156, 255)]]


def test_extreme_shapes_are_refused():
    with pytest.raises(InputError, match="200 times"):
        smart_resize(10, 2001, factor=14, min_pixels=784, max_pixels=3211264)
    assert smart_resize(10, 2000, factor=14, min_pixels=784, max_pixels=3211264) == (14, 1994 // 14 * 14 + 14)
    with pytest.raises(InputError, match="must be positive"):
        SizeRule().size(0, 10)
