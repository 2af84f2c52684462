"""What a pipeline returns, in the type asked for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from PIL import Image

from mammoth_jax.pipelines.options import Picture

OutputType = Literal["pil", "np", "latent"]


@dataclasses.dataclass(frozen=True)
class TextToImageOutput:
    """``images`` in the asked type, in the order prompt 0 image 0, prompt 0 image 1, ..."""

    images: list[Any]
    pictures: list[Picture]


CONVERT: Mapping[str, Callable[[Picture], Any]] = {
    "pil": lambda picture: Image.fromarray(picture.pixels),
    "np": lambda picture: picture.pixels,
    "latent": lambda picture: picture.latents,
}
