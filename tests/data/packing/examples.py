"""Examples of every task with little pictures, a geometry, and an encoder that needs no model."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from mammoth_jax.data.example import Example, Filtered, Place, Task, Turn
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.pictures import ToEncode
from mammoth_jax.data.record import Encoded, Picture, UnreadablePicture
from mammoth_jax.training.packing_geometry import packing_geometry
from tests.tiny_model import random_model_words, tiny_config


@functools.cache
def geometry(**changes) -> Geometry:
    """The tiny model's."""
    return packing_geometry(tiny_config(), random_model_words().tokenizer, **changes)


def diffusion_changes(base: Geometry, **changes) -> Geometry:
    """A geometry with another diffusion side."""
    assert base.diffusion is not None
    return dataclasses.replace(base, diffusion=dataclasses.replace(base.diffusion, **changes))


def picture(seed: int, height: int = 32, width: int = 48, encoded: Encoded | None = None) -> Picture:
    """Random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Picture(f"picture {seed}", lambda: pixels, encoded=encoded)


class Checksums:
    """Codes and latents that follow from the pixels, of the shapes that the tiny model's would have."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, pictures: Sequence[ToEncode]) -> list[Encoded]:
        """Numbers drawn with a checksum of the pixels."""
        self.asked += len(pictures)
        return [self._one(each) for each in pictures]

    def _one(self, each: ToEncode) -> Encoded:
        config = tiny_config()
        codes = mean = logvar = None
        if each.tokens is not None:
            patch = config.mammothtok.encoder.patch_size
            grid = (each.tokens.shape[0] // patch, each.tokens.shape[1] // patch)
            codes = _random(each.tokens).integers(0, 1000, grid)
        if each.latents is not None:
            factor, channels = config.vae.factor, config.vae.latent_channels
            shape = (each.latents.shape[0] // factor, each.latents.shape[1] // factor, channels)
            mean, logvar = _random(each.latents).standard_normal((2, *shape), np.float32)
        return Encoded(codes, mean, logvar)


def _random(pixels: np.ndarray) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(pixels.tobytes()))


def drawn(caption: str, seed: int, height: int = 32, width: int = 48) -> Example:
    """Text to image."""
    return Example("t2i", (Turn("user", (caption,)),), target=picture(seed, height, width), key=f"t2i/{seed}")


def edited(words: str, seed: int, references: int = 1) -> Example:
    """An edit; the references differ in size."""
    shown = [picture(100 * seed + i, 24 + 8 * i, 32) for i in range(references)]
    return Example("edit", (Turn("user", (*shown, words)),), target=picture(seed), key=f"edit/{seed}")


def reasoned(words: str, reasoning: str, seed: int) -> Example:
    """A picture after reasoning."""
    turns = (Turn("user", (picture(seed + 50), words)),)
    return Example("a2a", turns, target=picture(seed), reasoning=reasoning, key=f"a2a/{seed}")


def asked(seed: int) -> Example:
    """Two questions about two pictures, and an idle one."""
    turns = (
        Turn("system", ("Answer briefly.",)),
        Turn("user", (picture(seed), "What is on the left?")),
        Turn("assistant", ("A cat.",)),
        Turn("user", ("And here?", picture(seed + 1, 48, 48))),
        Turn("assistant", ("Two red balls, one above the other.",)),
        Turn("user", (picture(seed + 2), "Thank you!")),
    )
    return Example("it2t", turns, key=f"it2t/{seed}")


def document(words: int) -> Example:
    """A plain text."""
    return Example("text", document=" ".join(f"word{i}" for i in range(words)), key=f"text/{words}")


@dataclasses.dataclass(frozen=True)
class Made:
    """A source whose examples are made by number; some are no good."""

    task: Task
    name: str = "made"
    length: int = 40
    bad: tuple[int, ...] = ()
    filtered: tuple[int, ...] = ()
    weight: float = 1.0
    blocks: None = None
    files: int = 10
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return self.length

    def open(self, models: Mapping[str, str] = {}) -> "Made":
        """It is open."""
        return self

    def example(self, index: int, place: Place) -> Example:
        """An example; its lengths vary with the number."""
        if index in self.bad:
            raise UnreadablePicture(f"{self.name}/{index}: broken")
        if index in self.filtered:
            raise Filtered("short side below 16")
        words = " ".join(f"{self.name}{index}" for _ in range(1 + index * 7 % 13))
        if self.task == "t2i":
            return drawn(words, index, 16 + 8 * (index % 4), 16 + 8 * (index % 3))
        if self.task == "edit":
            return edited(words, index, 1 + index % 3)
        if self.task == "a2a":
            return reasoned(words, words, index)
        return asked(index) if self.task == "it2t" else document(5 + index % 30)
