"""A reference picture in the three forms in which an edit sees it, each of which may be off (paper, table 9)."""

import dataclasses

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float, Int
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.models.mammothtok.encoder import patch_sequence
from mammoth_jax.pipelines.buckets import token_bucket
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.programs import encode_references_program, tokenize_program
from mammoth_jax.pipelines.vision_processors import image_processor
from mammoth_jax.processing.chat import reference_ids, reference_layout
from mammoth_jax.processing.image import SizeRule, pixels, preprocess
from mammoth_jax.processing.picture_rules import for_tokens
from mammoth_jax.processing.prompts import Part
from mammoth_jax.processing.vision import Patches, check_shape, image_patches

FORMS = (
    ("vision", "in the vision tower", ("vision_tower",)),
    ("tokens", "as visual tokens", ("generation_experts", "mammothtok_encoder", "mammothtok_codebook")),
    ("latents", "as latents", ("vae",)),
)
"""Forms of a reference, in words, and the parts that make them; the Preview's release lacks those of ``tokens``."""


@dataclasses.dataclass(frozen=True)
class Channels:
    """Which forms are used: the vision tower's tokens, MammothTok's tokens, the VAE's latents."""

    vision: bool = True
    tokens: bool = True
    latents: bool = True

    def require(self, model: Mammoth) -> None:
        """Checks that the model has the parts that these forms need.

        Raises:
          InputError: names the form, the parts that are missing, and how to do without.
        """
        for name, form, parts in FORMS:
            if not getattr(self, name):
                continue
            try:
                model.require(f"edit with the references {form} (use_{name})", *parts)
            except InputError as error:
                raise InputError(
                    f"{error}; switch that form off (use_{name}=False, --no-{name}) or use a checkpoint that has them"
                ) from None


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A picture as the vision tower's patches, MammothTok's codes and VAE latents; ``None`` where a form is off."""

    patches: Patches | None
    codes: Int[np.ndarray, "rows cols"] | None
    latents: Float[np.ndarray, "rows cols c"] | None

    def parts(self, merge_size: int) -> list[Part]:
        """Its blocks in a prompt: vision placeholders, then visual tokens."""
        seen = None if self.patches is None else self.patches.grid.tokens(merge_size)
        return reference_layout(seen, None if self.codes is None else self.codes.tolist())

    def num_tokens(self, merge_size: int) -> int:
        """How many ids its blocks have."""
        seen = None if self.patches is None else self.patches.grid.tokens(merge_size)
        return reference_ids(seen, None if self.codes is None else self.codes.shape)

    def num_patches(self, patch_size: int) -> int:
        """How many patches its latents have in the diffusion transformer."""
        return 0 if self.latents is None else self.latents.shape[0] * self.latents.shape[1] // patch_size**2


def read_reference(loaded: LoadedModel, picture: Image.Image, channels: Channels) -> Reference:
    """Makes the forms that are on; to be called with the model's mesh set.

    Latents are the posterior's mean.  The VAE's picture is never enlarged; the vision tower's and MammothTok's are
    resized to their own multiples.

    Patches of the vision tower and of MammothTok are padded to buckets, which changes nothing.  The VAE's convolutions
    and group norms see where a picture ends, so it compiles a program for each size of reference.

    Raises:
      InputError: one side is far longer than the other, or the model lacks a part.
    """
    channels.require(loaded.model)
    check_shape(picture.height, picture.width)
    config, model = loaded.config, loaded.model
    patches = codes = latents = None
    if channels.vision:
        patches = image_patches(picture, image_processor(loaded))
    if channels.tokens:
        codes = _codes(loaded, picture)
    if channels.latents:
        shown = preprocess(picture, size_rule(config))[None]
        latents = np.asarray(encode_references_program(model.vae, shown), np.float32)[0]
    return Reference(patches, codes, latents)


def size_rule(config: MammothConfig, factor: int | None = None) -> SizeRule:
    """How pictures are made to fit the VAE; sides are multiples of ``factor``, by default what the network needs."""
    return config.picture_rules.size_rule(factor)


def _codes(loaded: LoadedModel, picture: Image.Image) -> Int[np.ndarray, "rows cols"]:
    """The picture's visual tokens."""
    patch = loaded.config.mammothtok.encoder.patch_size
    shown = token_pixels(loaded.config, picture)
    rows, cols = shown.shape[0] // patch, shown.shape[1] // patch
    sequence = patch_sequence(shown, patch, token_bucket(rows * cols))
    ids = np.asarray(tokenize_program(loaded.model.mammothtok, sequence))[0]
    return ids[: rows * cols].reshape(rows, cols)


def token_pixels(config: MammothConfig, picture: Image.Image) -> Float[np.ndarray, "rows cols 3"]:
    """The picture resized to whole visual tokens, in [-1, 1]."""
    return pixels(for_tokens(picture, config.picture_rules.token_size(picture.height, picture.width)))
