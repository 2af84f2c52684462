"""Pictures are decoded as a viewer would show them, and broken ones say which they are."""

import io

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.data.record import Picture, Record, UnreadablePicture


def encoded(picture, form="PNG", **options):
    """A picture file's bytes."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (2, 3), (200, 0, 0, 0))
    pixels = Picture("clear.png", lambda: encoded(clear)).decode()
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 2, 3)
    assert (pixels == 255).all()


def test_the_camera_s_orientation_is_applied():
    plain = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned = Picture("turned.png", lambda: encoded(plain, exif=exif)).decode()
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(plain), -1))
    assert Picture("turned.png", lambda: encoded(plain, exif=exif)).size() == (4, 2)


def test_rendered_pixels_are_handed_through():
    pixels = np.full((2, 2, 3), 7, np.uint8)
    assert Picture("scene", lambda: pixels).decode() is pixels


def test_sixteen_bits_become_the_upper_eight():
    deep = Image.fromarray(np.array([[0, 256 * 7 + 3], [65535, 40000]], np.uint16))
    pixels = Picture("deep.png", lambda: encoded(deep)).decode()
    assert pixels[..., 0].tolist() == [[0, 7], [255, 156]]
    assert (pixels == pixels[..., :1]).all()


def test_a_size_that_is_known_is_not_read():
    assert Picture("scene", missing, known_size=(3, 5)).size() == (3, 5)


def missing():
    """What reading a file that is gone does."""
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    "read",
    [
        missing,
        lambda: b"",
        lambda: b"not a picture",
        lambda: encoded(Image.new("RGB", (64, 64)), "JPEG")[:-200],
    ],
    ids=["missing", "empty", "text", "cut short"],
)
def test_a_broken_picture_is_named(read):
    with pytest.raises(UnreadablePicture, match=r"shard\.tar:one\.jpg: "):
        Picture("shard.tar:one.jpg", read).decode()


def test_every_picture_of_a_record_has_a_name_of_its_own():
    a, b, c, d = (Picture(name, lambda: b"") for name in "abcd")
    fields = {"inputs": (a, (b,)), "target": (c,), "caption": "words", "said": ("one", "two")}
    record = Record("k", "s", (a, b, c, d), fields)
    assert record.named_pictures() == {"": d, "inputs/0": a, "inputs/1": b, "target/0": c}
    assert Record("k", "s", (a, b), {}).named_pictures() == {"": a, "1": b}
