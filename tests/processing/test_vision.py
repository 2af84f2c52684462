"""Pictures to patches: the released processor's recorded values, its sizes, its settings files, and bad pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing import vision
from mammoth_jax.processing.vision import (
    QWEN3VL_IMAGES,
    QWEN25VL_IMAGES,
    Grid,
    VisionProcessorConfig,
    family_images,
    image_patches,
    load_picture,
    over_white,
)
from tests.processing.nano_processors import NANO_IMAGES

RECORDED = np.load(Path(__file__).parent.parent / "vectors" / "processing" / "images.npz")
FAMILIES = {"qwen3vl": QWEN3VL_IMAGES, "qwen25vl": QWEN25VL_IMAGES}
PICTURES = sorted(key.removesuffix("/png") for key in RECORDED if key.endswith("/png"))
SMALL = {"min_pixels": 1000, "max_pixels": 2500}


def recorded_values(recorded, name):
    """Patches as the recorder stored them: a number for each distinct value of a channel, in differences."""
    codes = np.cumsum(recorded[f"{name}/codes"], axis=-1, dtype=np.uint8)
    levels = recorded[f"{name}/levels"]
    return np.stack([levels[channel][codes[:, channel]] for channel in range(3)], axis=1).reshape(
        len(codes), -1
    )


def picture(height, width, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values, mode)


def encoded(image, format="PNG"):
    data = io.BytesIO()
    image.save(data, format)
    return data.getvalue()


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_equal_the_released_processors(family, name, tmp_path):
    released = FAMILIES[family]
    if name != "one_pixel":
        (tmp_path / vision.PREPROCESSOR_FILE).write_text(json.dumps(SMALL))
    config = VisionProcessorConfig.from_folder(tmp_path, released)
    done = image_patches(load_picture(RECORDED[f"{name}/png"].tobytes()), config)
    assert [list(done.grid)] == RECORDED[f"{family}/{name}/grid"].tolist()
    assert done.values.dtype == np.float32
    np.testing.assert_array_equal(done.values, recorded_values(RECORDED, f"{family}/{name}"))


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_equal_the_released_processors(family):
    refused = 0
    rows = zip(RECORDED[f"{family}/sides"].tolist(), RECORDED[f"{family}/sizes"].tolist(), strict=True)
    for sides, expected in rows:
        if expected == [0, 0]:
            refused += 1
            with pytest.raises(InputError, match="200 times"):
                FAMILIES[family].size(*sides)
        else:
            assert list(FAMILIES[family].size(*sides)) == expected
    assert 0 < refused < 100


def test_patches_are_in_the_order_of_the_tokens_that_they_merge_into():
    config = VisionProcessorConfig(patch_size=2, min_pixels=1, max_pixels=10_000)
    values = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)
    done = image_patches(Image.fromarray(np.stack([values, values + 100, values + 150], -1)), config)
    assert done.grid == Grid(1, 4, 6)
    cells = ((done.values * 0.5 + 0.5) * 255).round().astype(int).reshape(2, 3, 2, 2, 3, 2, 2, 2)
    for row, col, in_row, in_col, y, x in np.ndindex(2, 3, 2, 2, 2, 2):
        pixel = values[(row * 2 + in_row) * 2 + y, (col * 2 + in_col) * 2 + x]
        both_frames = cells[row, col, in_row, in_col, :, :, y, x]
        assert both_frames.tolist() == [[pixel] * 2, [pixel + 100] * 2, [pixel + 150] * 2]


def test_one_pixel_is_enlarged_to_the_least_area():
    for config, side in ((QWEN3VL_IMAGES, 256), (QWEN25VL_IMAGES, 56), (NANO_IMAGES, 16)):
        done = image_patches(Image.new("RGB", (1, 1), (255, 0, 0)), config)
        assert done.grid == Grid(1, side // config.patch_size, side // config.patch_size)
        assert done.values.shape == (done.grid.rows * done.grid.cols, config.patch_values)


def test_nano_keeps_its_own_pictures_as_they_are():
    done = image_patches(picture(64, 64), NANO_IMAGES)
    assert done.grid == Grid(1, 8, 8)
    assert done.grid.tokens(NANO_IMAGES.merge_size) == 16
    assert done.values.shape == (64, 3 * 2 * 8 * 8)


def test_very_thin_pictures_are_refused():
    with pytest.raises(InputError, match=r"20000x20 pixels.*200 times.*crop"):
        image_patches(Image.new("RGB", (20000, 20)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a picture", "not a picture that Pillow can read"),
        (b"", "not a picture that Pillow can read"),
        (encoded(picture(40, 40))[:900], "does not decode"),
        (encoded(picture(40, 40), "JPEG")[:700], "does not decode"),
    ],
)
def test_pictures_that_do_not_decode_are_refused(data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_picture(data)
    file = tmp_path / "broken.png"
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"broken\.png: {message}"):
        load_picture(file)


def test_pictures_too_large_to_decode_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="make it smaller"):
        load_picture(encoded(picture(40, 40)))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        load_picture(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        load_picture(tmp_path)


def test_pictures_are_turned_upright():
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    picture(10, 30).save(data, "PNG", exif=exif)
    assert load_picture(data.getvalue()).size == (10, 30)


def test_files_with_greys_of_sixteen_bits_are_seen_with_the_upper_eight():
    deep = Image.fromarray(np.array([[0, 256 * 7 + 3], [40000, 65535]], np.uint16))
    shown = np.asarray(over_white(load_picture(encoded(deep))))
    assert shown[..., 0].tolist() == [[0, 7], [156, 255]]
    assert (shown == shown[..., :1]).all()


def test_settings_survive_a_round_trip(tmp_path):
    assert VisionProcessorConfig.from_folder(tmp_path, NANO_IMAGES) == NANO_IMAGES
    for config in (NANO_IMAGES, QWEN25VL_IMAGES):
        (tmp_path / vision.PREPROCESSOR_FILE).write_text(json.dumps(config.to_released()))
        assert VisionProcessorConfig.from_folder(tmp_path, QWEN3VL_IMAGES) == config


def test_settings_come_from_any_of_the_released_spellings(tmp_path):
    expected = VisionProcessorConfig(patch_size=16, min_pixels=1024, max_pixels=2048)
    spellings = (
        {"min_pixels": 1024, "max_pixels": 2048},
        {"min_pixels": 1024, "max_pixels": 2048, "size": {"shortest_edge": 1, "longest_edge": 2}},
        {"size": {"shortest_edge": 1024, "longest_edge": 2048}, "min_pixels": None},
        {"size": {"min_pixels": 1024, "max_pixels": 2048}},
    )
    for settings in spellings:
        (tmp_path / vision.PREPROCESSOR_FILE).write_text(json.dumps(settings))
        assert VisionProcessorConfig.from_folder(tmp_path, QWEN3VL_IMAGES) == expected
    nested = {
        "image_processor": {"min_pixels": 1024, "max_pixels": 4096},
        "processor_class": "Qwen3VLProcessor",
    }
    (tmp_path / vision.PROCESSOR_FILE).write_text(json.dumps(nested))
    assert VisionProcessorConfig.from_folder(tmp_path, QWEN3VL_IMAGES).max_pixels == 4096


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[1]", "expected a JSON object"),
        ('{"do_resize": false}', "do_resize is false"),
        ('{"resample": 2}', "bicubic"),
        ('{"size": 448}', "shortest_edge and longest_edge"),
        ('{"patch_size": "16"}', "patch_size '16': expected a positive integer"),
        ('{"min_pixels": 100, "max_pixels": 50}', "max_pixels 50: expected at least min_pixels 100"),
        ('{"image_std": [0, 1, 1]}', "std without zeros"),
        ('{"image_mean": 0.5}', "mean 0.5: expected three numbers"),
        ('{"rescale_factor": 0}', "rescale_factor 0"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(content, message, tmp_path):
    (tmp_path / vision.PREPROCESSOR_FILE).write_text(content)
    with pytest.raises(InputError, match=rf"{vision.PREPROCESSOR_FILE}.*{message}"):
        VisionProcessorConfig.from_folder(tmp_path, QWEN3VL_IMAGES)


def test_a_tower_of_another_patch_reads_from_one_token_to_sixteen_squared():
    assert family_images("qwen3_vl", 8, 2, 2) == NANO_IMAGES
    assert family_images("qwen3_vl", 16, 2, 2) == QWEN3VL_IMAGES
    assert family_images("qwen2_5_vl", 14, 2, 2) == QWEN25VL_IMAGES


def test_a_larger_picture_is_scaled_to_the_area_of_a_given_side():
    bounded = QWEN3VL_IMAGES.within(512)
    assert bounded.size(1024, 2048) == (352, 704) and QWEN3VL_IMAGES.size(1024, 2048) == (1024, 2048)
    assert bounded.size(448, 320) == QWEN3VL_IMAGES.size(448, 320)
    assert QWEN3VL_IMAGES.within(None) == QWEN3VL_IMAGES.within(9999) == QWEN3VL_IMAGES
    assert QWEN3VL_IMAGES.within(16).max_pixels == QWEN3VL_IMAGES.min_pixels
