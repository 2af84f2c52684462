"""Which sizes a picture takes on its way into a model: as visual tokens, as latents, and as what is drawn.

Sampling and training make pictures fit by these same rules.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import UInt8
from mammoth_jax.processing.image import RESAMPLE, SizeRule, smart_resize, to_rgb

MIN_TOKENS = 4
"""The least number of visual tokens of a reference; smaller pictures are enlarged, as in the release."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureRules:
    """A model's sizes.

    Attributes:
        pixel_step: sides of latents, in pixels, are multiples of this: VAE factor times patch of the diffusion
            transformer.
        pixels_per_token: pixels of a drawn picture's side that one visual token stands for.
        token_patch: pixels of a side that MammothTok reads for one visual token.
        picture_size: side of the largest square; other shapes have its area at most.
    """

    pixel_step: int
    pixels_per_token: int
    token_patch: int
    picture_size: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f"picture rules: {field.name} {getattr(self, field.name)} must be at least 1"
                )

    def size_rule(self, factor: int | None = None) -> SizeRule:
        """How pictures are made to fit the VAE; sides are multiples of ``factor``, by default ``pixel_step``."""
        side = self.picture_size
        return SizeRule(factor=factor or self.pixel_step, max_pixels=side * side, max_side_length=2 * side)

    def drawn_size(self, height: int, width: int) -> tuple[int, int]:
        """Pixels of the picture that is drawn after one of this size: whole patches and whole visual tokens."""
        return self.size_rule(math.lcm(self.pixel_step, self.pixels_per_token)).size(height, width)

    def token_size(self, height: int, width: int) -> tuple[int, int]:
        """Pixels at which MammothTok reads a reference of this size.

        Raises:
          InputError: one side is more than 200 times the other.
        """
        patch = self.token_patch
        return smart_resize(
            height,
            width,
            factor=patch,
            min_pixels=MIN_TOKENS * patch**2,
            max_pixels=self.picture_size**2,
        )


def for_tokens(picture: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "rows cols 3"]:
    """A picture at the (height, width) at which MammothTok reads it."""
    height, width = size
    return np.asarray(to_rgb(picture).resize((width, height), Image.Resampling.BICUBIC))


def for_latents(picture: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "rows cols 3"]:
    """A picture at the (height, width) at which the VAE reads it."""
    height, width = size
    return np.asarray(to_rgb(picture).resize((width, height), Image.Resampling[RESAMPLE.upper()]))
