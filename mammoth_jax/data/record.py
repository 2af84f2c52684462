"""What a source of data holds: pictures that are read when asked for, and the fields that go with them."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from mammoth_jax.core.types import UInt8
from mammoth_jax.processing.image import to_rgb


class UnreadablePicture(Exception):
    """A picture that cannot be read or decoded; the message names it.  Loaders count these and go on."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that is not read yet.

    ``where`` names it in messages (``shard.tar:member.jpg``); ``read`` returns the bytes of a picture file, or pixels
    (uint8, ``[height, width, 3]``) where there is no file.
    """

    where: str
    read: Callable[[], bytes | np.ndarray]

    def decode(self) -> UInt8[np.ndarray, "height width 3"]:
        """RGB pixels as the photographer held the camera (EXIF), transparent ones laid over white.

        Raises:
          UnreadablePicture: the file is missing, cut short or no picture.
        """
        try:
            found = self.read()
        except OSError as error:
            raise UnreadablePicture(f"{self.where}: {error.strerror or error}") from error
        if isinstance(found, np.ndarray):
            return found
        try:
            with Image.open(io.BytesIO(found)) as picture:
                return np.asarray(to_rgb(ImageOps.exif_transpose(picture)))
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
            raise UnreadablePicture(f"{self.where}: {str(error) or type(error).__name__}") from error


@dataclasses.dataclass(frozen=True)
class Record:
    """One sample.  ``key`` is unique within its source; ``fields`` are captions, scene descriptions and the like."""

    key: str
    source: str
    pictures: tuple[Picture, ...]
    fields: Mapping[str, Any]


class Source(Protocol):
    """Records by number.  Looking one up is cheap; its pictures are read by :meth:`Picture.decode`."""

    @property
    def name(self) -> str:
        """What messages and logs call the source."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...
