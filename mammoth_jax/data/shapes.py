"""Pictures of any size to the few shapes that are compiled: one fixed shape, or buckets of aspect ratios."""

import dataclasses
import math
from typing import Literal

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import UInt8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedShape:
    """Every picture is scaled until it covers ``height`` x ``width`` and cropped to it.

    A picture that would have to grow by more than ``max_upscale`` is left out and counted.
    """

    height: int
    width: int
    crop: Literal["centre", "random"] = "centre"
    max_upscale: float = 1.0

    def __post_init__(self) -> None:
        _check(self.max_upscale, self.height, self.width)

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The one (height, width)."""
        return ((self.height, self.width),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AspectBuckets:
    """Shapes of about ``pixels`` pixels, one for each of ``ratios`` (width : height), sides divisible by ``stride``.

    A picture goes to the shape of the nearest ratio, is scaled until it covers that shape and cropped to it.  Each
    batch is of one shape; ``weights`` say how often each is served, and if none are given, the sizes of pictures do:
    of ``measure`` before the first step, and of a few more with each step.
    """

    pixels: int
    stride: int
    ratios: tuple[float, ...] = (0.5, 0.5625, 0.6667, 0.75, 1.0, 1.3333, 1.5, 1.7778, 2.0)
    weights: tuple[float, ...] = ()
    measure: int = 512
    crop: Literal["centre", "random"] = "centre"
    max_upscale: float = 1.0

    def __post_init__(self) -> None:
        _check(self.max_upscale, self.pixels, self.stride, self.measure)
        if not self.ratios or min(self.ratios) <= 0:
            raise InputError(
                f"ratios of buckets must be positive numbers (width / height), got {self.ratios}"
            )
        if self.weights and len(self.weights) != len(self.shapes()):
            raise InputError(
                f"{len(self.weights)} weights for the {len(self.shapes())} shapes (height, width) {self.shapes()}; "
                "give one each"
            )
        if self.weights and (min(self.weights) < 0 or max(self.weights) <= 0):
            raise InputError(f"weights of buckets must not be negative nor all 0, got {self.weights}")

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every bucket: sides of the exact area, rounded down to the stride; each shape once."""

        def side(exact: float) -> int:
            return max(int(exact + 1e-6) // self.stride, 1) * self.stride

        each = ((side(math.sqrt(self.pixels / r)), side(math.sqrt(self.pixels * r))) for r in self.ratios)
        return tuple(dict.fromkeys(each))


def _check(max_upscale: float, *sizes: int) -> None:
    if min(sizes) < 1 or max_upscale <= 0:
        raise InputError(
            f"sizes {sizes} of a shape must be at least 1 and max_upscale {max_upscale} positive"
        )


def nearest_shape(height: int, width: int, shapes: tuple[tuple[int, int], ...]) -> int:
    """Number of the shape whose aspect ratio is nearest, in the logarithm."""
    ratio = math.log(width / height)
    return min(range(len(shapes)), key=lambda i: abs(math.log(shapes[i][1] / shapes[i][0]) - ratio))


def upscale(height: int, width: int, shape: tuple[int, int]) -> float:
    """The factor by which a picture must grow (below 1: may shrink) to cover a shape."""
    return max(shape[0] / height, shape[1] / width)


def cover(
    pixels: UInt8[np.ndarray, "height width 3"], shape: tuple[int, int], place: tuple[float, float]
) -> UInt8[np.ndarray, "rows cols 3"]:
    """The largest part of the shape's aspect ratio, scaled to the shape (Lanczos).

    ``place`` says where it lies, as parts of the free room above and to the left: (0.5, 0.5) is the centre.
    """
    height, width = pixels.shape[:2]
    if (height, width) == shape:
        return pixels
    scale = upscale(height, width, shape)
    part = (min(shape[0] / scale, height), min(shape[1] / scale, width))
    top, left = (place[0] * (height - part[0]), place[1] * (width - part[1]))
    if scale == 1:
        return pixels[round(top) : round(top) + shape[0], round(left) : round(left) + shape[1]]
    box = (left, top, left + part[1], top + part[0])
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.LANCZOS, box=box))
