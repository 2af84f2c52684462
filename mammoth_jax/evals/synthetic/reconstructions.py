"""What the VAE and MammothTok make of a true picture: what coding alone loses of it."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mammoth_jax.core.types import Array, Float, UInt8
from mammoth_jax.models.mammothtok.model import MammothTok, to_uint8
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.models.vae.model import VAE, postprocess
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.references import token_pixels
from mammoth_jax.processing.image import pixels

Reconstruct = Callable[[Sequence[Image.Image]], list[UInt8[np.ndarray, "height width 3"]]]
"""Pictures of one size, coded and decoded."""

PARTS = {"vae": ("vae",), "mammothtok": ("mammothtok_encoder", "mammothtok_codebook", "mammothtok_decoder")}


def reconstructions(loaded: LoadedModel, batch_size: int) -> Mapping[str, Reconstruct]:
    """By name, those of :data:`PARTS` that the model has."""

    def vae(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
        return _in_batches(
            loaded, [pixels(picture) for picture in pictures], batch_size, _through_vae, loaded.model.vae
        )

    def mammothtok(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
        shown = [token_pixels(loaded.config, picture) for picture in pictures]
        return _in_batches(loaded, shown, batch_size, _through_tokens, loaded.model.mammothtok)

    every: dict[str, Reconstruct] = {"vae": vae, "mammothtok": mammothtok}
    return {name: one for name, one in every.items() if set(PARTS[name]) <= set(loaded.model.parts)}


def _in_batches(
    loaded: LoadedModel, shown: list[np.ndarray], size: int, program: Callable, module: object
) -> list[np.ndarray]:
    """All launches have one shape; the last is filled up."""
    out: list[np.ndarray] = []
    with jax.set_mesh(loaded.mesh):
        for first in range(0, len(shown), size):
            group = shown[first : first + size]
            filled = np.stack([*group, *[group[-1]] * (size - len(group))])
            out += list(np.asarray(program(module, filled))[: len(group)])
    return out


@jax.jit
def _through_vae(vae: VAE, pictures: Float[Array, "b rows cols 3"]) -> UInt8[Array, "b rows cols 3"]:
    """The posterior's mean, decoded."""
    dtype = vae.decoder.conv_in.kernel.dtype
    return postprocess(vae.decode(vae.encode(pictures.astype(dtype)).mean, Tiling(), dtype=dtype))


@jax.jit
def _through_tokens(
    model: MammothTok, pictures: Float[Array, "b rows cols 3"]
) -> UInt8[Array, "b rows2 cols2 3"]:
    """The codes as integers, decoded."""
    dtype = model.decoder.from_code.kernel.dtype  # type: ignore[union-attr]
    return to_uint8(model.decode(model.encode(jnp.asarray(pictures, dtype)), dtype))
