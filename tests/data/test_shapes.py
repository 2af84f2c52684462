"""Pictures brought to shape: what is kept, what is scaled, which bucket."""

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.data.shapes import AspectBuckets, FixedShape, cover, nearest_shape, upscale


def ramp(height, width):
    """A picture whose red grows to the right and green downwards, by 2 a pixel."""
    y, x = np.mgrid[:height, :width].astype(np.uint8) * 2
    return np.stack([x, y, np.full_like(x, 9)], -1)


def test_a_picture_of_the_right_shape_is_not_touched():
    picture = ramp(8, 12)
    assert cover(picture, (8, 12), (0.9, 0.9)) is picture


@pytest.mark.parametrize(("place", "left"), [((0.5, 0.5), 4), ((0.5, 0.0), 0), ((0.5, 0.99), 8)])
def test_without_scaling_pixels_are_cut_out(place, left):
    picture = ramp(16, 24)
    np.testing.assert_array_equal(cover(picture, (16, 16), place), picture[:, left : left + 16])


def test_a_larger_picture_shrinks_to_cover_the_shape_and_is_cropped_in_the_middle():
    picture = ramp(40, 80)
    middle = Image.fromarray(picture[:, 20:60]).resize((20, 20), Image.Resampling.LANCZOS)
    found = cover(picture, (20, 20), (0.5, 0.5))
    assert found.shape == (20, 20, 3)
    # Scaling sees the pixels beside the crop, too, so the edge columns differ by a step of the ramp.
    assert np.abs(found.astype(int) - np.asarray(middle)).max() <= 2
    assert np.abs(found[:, :, 0].mean() - picture[:, :, 0].mean()) < 1
    left = cover(picture, (20, 20), (0.5, 0.0))
    assert left[0, 0, 0] <= 3 < found[0, 0, 0]


def test_upscale_is_the_factor_of_the_side_that_is_shorter_of_the_two():
    assert upscale(10, 40, (20, 20)) == 2
    assert upscale(40, 10, (20, 20)) == 2
    assert upscale(40, 80, (20, 20)) == 0.5


def test_buckets_have_the_area_the_ratio_and_sides_of_the_stride():
    buckets = AspectBuckets(pixels=1024 * 1024, stride=16)
    for (height, width), ratio in zip(buckets.shapes(), buckets.ratios, strict=True):
        assert height % 16 == width % 16 == 0
        assert 0.96 < height * width / 1024**2 <= 1
        assert abs(width / height / ratio - 1) < 0.03
    assert (1024, 1024) in buckets.shapes()


def test_shapes_that_coincide_at_a_coarse_stride_are_one():
    shapes = AspectBuckets(pixels=64, stride=4, ratios=(0.5, 0.6, 1.0, 1.1, 2.0)).shapes()
    assert shapes == ((8, 4), (8, 8), (4, 8))


def test_a_picture_goes_to_the_nearest_ratio_whichever_way_it_is_turned():
    shapes = AspectBuckets(pixels=8192, stride=8, ratios=(0.5, 1.0, 2.0)).shapes()
    assert shapes == ((128, 64), (88, 88), (64, 128))
    sizes = {(100, 100): 1, (100, 141): 1, (100, 142): 2, (141, 100): 1, (142, 100): 0}
    assert {size: nearest_shape(*size, shapes) for size in sizes} == sizes


def test_a_fixed_shape_is_one_shape():
    assert FixedShape(height=8, width=16).shapes() == ((8, 16),)
