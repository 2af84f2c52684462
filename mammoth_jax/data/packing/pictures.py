"""Pictures of a sample, brought to the sizes at which the models read them, and what is left to encode."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.packing.geometry import DiffusionGeometry, Forms, Geometry
from mammoth_jax.data.packing.positions import GridSize
from mammoth_jax.data.record import Encoded, Picture, UnreadablePicture
from mammoth_jax.processing.picture_rules import for_latents, for_tokens
from mammoth_jax.processing.vision import Grid, for_tower


@dataclasses.dataclass(frozen=True, eq=False)
class ToEncode:
    """What the frozen models must see of a picture, each at its own size; None what they need not."""

    tokens: UInt8[np.ndarray, "rows cols 3"] | None = None
    latents: UInt8[np.ndarray, "h w 3"] | None = None


class PictureEncoder(Protocol):
    """MammothTok and the VAE, called on the pictures of a step of which codes or latents are not known."""

    def encode(self, pictures: Sequence[ToEncode]) -> Sequence[Encoded]:
        """Codes of ``tokens`` and the posterior (not scaled) of ``latents``, of each picture."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ReadPicture:
    """A picture ready for packing.

    Attributes:
        seen: pixels for the vision tower.
        seen_grid: its patches.
        codes: rows and columns of its visual tokens.
        latents: rows and columns of its latent patches.
        known: what was computed beforehand.
        rest: what is to be encoded.
    """

    seen: UInt8[np.ndarray, "rows cols 3"] | None = None
    seen_grid: Grid | None = None
    codes: GridSize | None = None
    latents: GridSize | None = None
    known: Encoded = Encoded()
    rest: ToEncode = ToEncode()

    @property
    def num_patches(self) -> int:
        """Patches of its latents."""
        return 0 if self.latents is None else self.latents[0] * self.latents[1]


def read_shown(picture: Picture, geometry: Geometry) -> ReadPicture:
    """A picture of a question: in the tower alone.

    Raises:
      UnreadablePicture: it cannot be decoded.
      InputError: one side is far longer than the other.
    """
    return read_reference(picture, geometry, Forms(vision=True, tokens=False, latents=False))


def read_reference(picture: Picture, geometry: Geometry, forms: Forms) -> ReadPicture:
    """A reference in some of its forms, at the sizes at which sampling reads references.

    Raises:
      UnreadablePicture: it cannot be decoded, or what was computed of it does not fit the model.
      InputError: one side is far longer than the other.
    """
    known, rules = _known(picture), geometry.pictures
    make_codes = forms.tokens and known.codes is None
    make_latents = forms.latents and known.mean is None
    seen = seen_grid = codes = latents = tokens_in = latents_in = None
    pixels = _decode(picture) if forms.vision or make_codes or make_latents else None
    if forms.vision and geometry.tower is not None:
        assert pixels is not None
        images = geometry.tower.images
        seen = for_tower(pixels, images)
        seen_grid = Grid(1, seen.shape[0] // images.patch_size, seen.shape[1] // images.patch_size)
    if make_codes:
        assert pixels is not None
        tokens_in = for_tokens(pixels, rules.token_size(pixels.height, pixels.width))
    if make_latents:
        assert pixels is not None
        latents_in = for_latents(pixels, rules.size_rule().size(pixels.height, pixels.width))
    if forms.tokens:
        codes = _codes_grid(known, tokens_in, geometry)
    if forms.latents and geometry.diffusion is not None:
        latents = _latent_grid(picture, known, latents_in, geometry.diffusion)
    return ReadPicture(seen, seen_grid, codes, latents, known, ToEncode(tokens_in, latents_in))


def read_target(picture: Picture, geometry: Geometry) -> ReadPicture:
    """A picture that is drawn: as large as sampling would draw it, with one visual token for so many pixels.

    Raises:
      UnreadablePicture: it cannot be decoded, or what was computed of it does not fit the model.
      InputError: one side is far longer than the other.
    """
    known, rules = _known(picture), geometry.pictures
    tokens_in = latents_in = latents = None
    if known.codes is None or (known.mean is None and geometry.diffusion is not None):
        pixels = _decode(picture)
        height, width = rules.drawn_size(pixels.height, pixels.width)
        if known.codes is None:
            sides = (height // rules.pixels_per_token, width // rules.pixels_per_token)
            tokens_in = for_tokens(pixels, (sides[0] * rules.token_patch, sides[1] * rules.token_patch))
        if known.mean is None and geometry.diffusion is not None:
            latents_in = for_latents(pixels, (height, width))
    if geometry.diffusion is not None:
        latents = _latent_grid(picture, known, latents_in, geometry.diffusion)
    codes = _codes_grid(known, tokens_in, geometry)
    return ReadPicture(None, None, codes, latents, known, ToEncode(tokens_in, latents_in))


def _known(picture: Picture) -> Encoded:
    return Encoded() if picture.encoded is None else picture.encoded


def _decode(picture: Picture) -> Image.Image:
    return Image.fromarray(picture.decode())


def _codes_grid(known: Encoded, pixels: np.ndarray | None, geometry: Geometry) -> GridSize:
    if known.codes is not None:
        return known.codes.shape[0], known.codes.shape[1]
    assert pixels is not None
    patch = geometry.pictures.token_patch
    return pixels.shape[0] // patch, pixels.shape[1] // patch


def _latent_grid(
    picture: Picture, known: Encoded, pixels: np.ndarray | None, diffusion: DiffusionGeometry
) -> GridSize:
    if known.mean is None:
        assert pixels is not None
        cells = (pixels.shape[0] // diffusion.factor, pixels.shape[1] // diffusion.factor)
    else:
        cells = (known.mean.shape[0], known.mean.shape[1])
        fits = known.mean.shape[2] == diffusion.channels and not any(side % diffusion.patch for side in cells)
        if not fits or (diffusion.posterior == "sample" and known.logvar is None):
            raise UnreadablePicture(
                f"{picture.where}: latents of {list(known.mean.shape)} (variance: "
                f"{'none' if known.logvar is None else 'known'}) do not fit patches of {diffusion.patch} x "
                f"{diffusion.channels} channels; precompute them with this model"
            )
    return cells[0] // diffusion.patch, cells[1] // diffusion.patch
