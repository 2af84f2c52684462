"""Pictures on the host: which size they get, and pixels to arrays.

Two size rules occur in the release: :class:`SizeRule` for pictures that go to the autoencoder, :func:`smart_resize`
for those that go to the vision tower and the visual tokenizer.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float, UInt8

MAX_ASPECT = 200
RESAMPLE = "lanczos"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizeRule:
    """The largest size of the same shape whose sides divide by ``factor``, never enlarged.

    Bounds: ``max_pixels`` in area and ``max_side_length`` in pixels.  Sides shorter than the factor become the factor;
    with ``release_faults`` they become 0, as in the release.
    """

    factor: int = 16
    max_pixels: int = 1024 * 1024
    max_side_length: int = 2048
    release_faults: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """New height and width of a picture.

        Raises:
          InputError: a side is not positive.
        """
        _check_sides(height, width)
        by_area = (self.max_pixels / (height * width)) ** 0.5
        ratio = min(by_area, self.max_side_length / max(height, width), 1.0)
        least = 0 if self.release_faults else self.factor

        def fit(side: int) -> int:
            return max(int(side * ratio) // self.factor * self.factor, least)

        return fit(height), fit(width)


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Sides rounded to multiples of ``factor``, then scaled so that the area is within the bounds.

    Raises:
      InputError: a side is not positive, or one side is more than 200 times the other.
    """
    _check_sides(height, width)
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"picture of {width}x{height} pixels: one side is more than {MAX_ASPECT} times the other; crop it first"
        )
    new_height, new_width = (max(factor, round(side / factor) * factor) for side in (height, width))
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height, new_width = (
            max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
        )
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height, new_width = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return new_height, new_width


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in RGB; transparent pixels are laid over white."""
    picture = eight_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGB", picture.size, (255, 255, 255))
        ground.paste(picture, mask=picture.getchannel("A"))
        return ground
    return picture.convert("RGB")


def eight_bits(picture: Image.Image) -> Image.Image:
    """The upper eight bits of greys of sixteen, which Pillow would clip at 255; other pictures as they are."""
    if not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))


def preprocess(picture: Image.Image, rule: SizeRule = SizeRule()) -> Float[np.ndarray, "rows cols 3"]:
    """A picture resized by the rule (Lanczos, as Pillow does it) as float32 in [-1, 1]."""
    height, width = rule.size(picture.height, picture.width)
    return pixels(to_rgb(picture).resize((width, height), Image.Resampling[RESAMPLE.upper()]))


def pixels(picture: Image.Image | UInt8[np.ndarray, "rows cols 3"]) -> Float[np.ndarray, "rows cols 3"]:
    """An RGB picture as float32 in [-1, 1]: ``2 x / 255 - 1``."""
    return np.asarray(picture, np.float32) / np.float32(255) * 2 - 1


def _check_sides(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise InputError(f"picture of {width}x{height} pixels: both sides must be positive")
