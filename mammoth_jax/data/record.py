"""What a source of data holds: pictures that are read when asked for, and the fields that go with them."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from mammoth_jax.core.types import Float, Int, UInt8
from mammoth_jax.processing.image import to_rgb


class UnreadableRecord(Exception):
    """A record that cannot be used; the message names it.  Loaders count these and go on."""


class EmptyText(UnreadableRecord):
    """A record without the words that it needs."""


class MissingFile(UnreadableRecord):
    """A record that names a file which is not there."""


class UnreadablePicture(UnreadableRecord):
    """A picture that cannot be read or decoded."""


class MissingPicture(MissingFile, UnreadablePicture):
    """A picture that is not there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A picture as the frozen models see it: codes of the tokenizer, the VAE's posterior; None what is not known."""

    codes: Int[np.ndarray, "rows cols"] | None = None
    mean: Float[np.ndarray, "h w c"] | None = None
    logvar: Float[np.ndarray, "h w c"] | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that is not read yet.

    ``where`` names it in messages (``shard.tar:member.jpg``); ``read`` returns the bytes of a picture file, or pixels
    (uint8, ``[height, width, 3]``) where there is no file; then ``known_size`` gives height and width beforehand.
    ``encoded`` is what was computed of it beforehand, if anything was.
    """

    where: str
    read: Callable[[], bytes | np.ndarray]
    known_size: tuple[int, int] | None = None
    encoded: Encoded | None = None

    def decode(self) -> UInt8[np.ndarray, "height width 3"]:
        """RGB pixels as the photographer held the camera (EXIF), transparent ones laid over white.

        Raises:
          UnreadablePicture: the file is missing, cut short or no picture.
        """
        found = self._read()
        if isinstance(found, np.ndarray):
            return found
        try:
            with Image.open(io.BytesIO(found)) as picture:
                return np.asarray(to_rgb(ImageOps.exif_transpose(picture)))
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
            raise UnreadablePicture(f"{self.where}: {str(error) or type(error).__name__}") from error

    def size(self) -> tuple[int, int]:
        """Height and width as decoded, from the head of the file.

        Raises:
          UnreadablePicture: the file is missing or no picture.
        """
        if self.known_size is not None:
            return self.known_size
        found = self._read()
        if isinstance(found, np.ndarray):
            return found.shape[0], found.shape[1]
        try:
            with Image.open(io.BytesIO(found)) as picture:
                turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                width, height = picture.size
                return (width, height) if turned else (height, width)
        except Exception as error:
            raise UnreadablePicture(f"{self.where}: {str(error) or type(error).__name__}") from error

    def _read(self) -> bytes | np.ndarray:
        try:
            return self.read()
        except FileNotFoundError as error:
            raise MissingPicture(f"{self.where}: {error.strerror or error}") from error
        except OSError as error:
            raise UnreadablePicture(f"{self.where}: {error.strerror or error}") from error


@dataclasses.dataclass(frozen=True)
class Record:
    """One sample.  ``key`` is unique within its source; ``fields`` are captions, scene descriptions and the like."""

    key: str
    source: str
    pictures: tuple[Picture, ...]
    fields: Mapping[str, Any]

    def named_pictures(self) -> dict[str, Picture]:
        """All pictures by a name of their own: ``FIELD/NUMBER`` in a field, and of those in none ``""``, ``1``, ..."""
        found = {
            f"{name}/{number}": picture
            for name, value in self.fields.items()
            for number, picture in enumerate(_pictures_in(value))
        }
        held = {id(picture) for picture in found.values()}
        alone = [picture for picture in self.pictures if id(picture) not in held]
        return {str(number or ""): picture for number, picture in enumerate(alone)} | found


def _pictures_in(value: Any) -> Iterator[Picture]:
    if isinstance(value, Picture):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _pictures_in(part)


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Puts where it happened before the message of an :class:`UnreadableRecord` of any kind."""
    try:
        yield
    except UnreadableRecord as error:
        raise type(error)(f"{where}: {error}") from error


class Source(Protocol):
    """Records by number.  Looking one up is cheap; its pictures are read by :meth:`Picture.decode`."""

    @property
    def name(self) -> str:
        """What messages and logs call the source."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Record number ``index``.

        Raises:
          UnreadableRecord: what goes with its pictures cannot be read.
        """
        ...


@runtime_checkable
class OfFiles(Protocol):
    """What is read from files that hold many records each."""

    @property
    def name(self) -> str:
        """What messages and logs call the source."""
        ...

    @property
    def files(self) -> int:
        """How many files there are."""
        ...

    @property
    def problems(self) -> Mapping[str, str]:
        """Files that cannot be read, or not to their end, with what is wrong."""
        ...


@runtime_checkable
class ShardedSource(Source, OfFiles, Protocol):
    """A source of files that hold many records each."""

    @property
    def blocks(self) -> Sequence[int] | None:
        """Lengths of the runs of records that are read together (row groups), or None where each is read alone."""
        ...
