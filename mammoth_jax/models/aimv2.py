"""AIMv2 (Fini et al. 2024) as the frozen semantic encoder that MammothTok is aligned with (paper appendix A.1).

The tower is the one that MammothTok's encoder starts from; here with the published preparation of pictures, and with
the learned positions of the towers that know one resolution.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import param
from mammoth_jax.core.types import Array, Float
from mammoth_jax.models.mammothtok.config import EncoderConfig
from mammoth_jax.models.mammothtok.encoder import AIMv2

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""CLIP's, for pictures in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class AnyGrid:
    """A tower of native resolution: fixed positions for any grid."""


@dataclasses.dataclass(frozen=True)
class TrainedGrid:
    """A tower with learned positions for a square of ``side`` patches, and no other grid."""

    side: int


class SemanticEncoder(AIMv2):
    """Features for the semantic loss; a frozen network, nothing in it is to be differentiated."""

    def __init__(self, config: EncoderConfig, pixels_per_token: int, grid: AnyGrid | TrainedGrid = AnyGrid()):
        super().__init__(config)
        self.pixels_per_token = pixels_per_token
        self.trained = grid
        learned = isinstance(grid, TrainedGrid)
        self.positions = param((grid.side**2, config.width), (None, "embed")) if learned else None

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b gr gc d"]:
        """Features of a picture in [-1, 1], in its dtype.

        A tower of native resolution sees the picture at as many pixels as give one patch a visual token, so its grid
        is the token grid.  One with a trained grid sees it at that grid, distorted where it is not square; the loss
        then resizes the features.

        Raises:
          InputError: a side is not a positive multiple of the pixels per token.
        """
        b, rows, cols, _ = picture.shape
        p = self.pixels_per_token
        if rows < p or cols < p or rows % p or cols % p:
            raise InputError(
                f"picture of {cols}x{rows} pixels: both sides must be multiples of the {p} pixels of a visual token"
            )
        grid = (rows // p, cols // p)
        if isinstance(self.trained, TrainedGrid):
            grid = (self.trained.side, self.trained.side)
        picture = _resize(picture, grid[0] * self.patch_size, grid[1] * self.patch_size)
        mean, std = _MEAN.astype(picture.dtype), _STD.astype(picture.dtype)
        picture = ((picture + 1) / 2 - mean) / std
        return self.features(picture).reshape(b, *grid, -1)

    def features(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b n d"]:
        """Normalised features of the patches in raster order, of a picture that has been prepared."""
        if self.positions is None:
            return super().features(picture)
        x = self.embed(picture)
        return self.transform(x + self.positions[...].astype(x.dtype))


def _resize(x: Float[Array, "b rows cols 3"], rows: int, cols: int) -> Float[Array, "b rows2 cols2 3"]:
    """Bicubic with antialiasing, as published, within the range."""
    if x.shape[1:3] == (rows, cols):
        return x
    return jnp.clip(jax.image.resize(x, (x.shape[0], rows, cols, 3), "cubic"), -1, 1)
