"""Where a video's frames come from: a folder of pictures, or a file through PyAV (optional).

A source knows how many frames there are and how fast they follow each other before any is decoded, so that frames are
chosen first and only those are kept.
"""

import dataclasses
import importlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import UInt8
from mammoth_jax.processing.vision import load_picture, over_white

DEFAULT_FPS = 24.0
"""Rate of frames that come without one (a folder, or a file that does not say): what the release assumes."""

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@runtime_checkable
class VideoSource(Protocol):
    """Frames that can be read by index."""

    @property
    def total_frames(self) -> int:
        """Number of frames, at least 1."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second."""
        ...

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t rows cols 3"]:
        """Frames at these indices, in rising order, as RGB bytes; InputError if one does not decode."""
        ...


def open_video(path: Path, fps: float | None = None) -> VideoSource:
    """A video file, or a folder of frames sorted by name (numbers in names by value).

    Args:
        path: the file or folder.
        fps: frames a second; without it the file's own, or 24 for a folder.  For frames already taken at a low rate,
            say 2 a second, give that rate.

    Raises InputError for a path without frames, a file that does not decode, and a file where PyAV is not installed.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"video {path}: {fps} frames a second; expected a positive number")
    if path.is_dir():
        return FolderSource.open(path, DEFAULT_FPS if fps is None else fps)
    if not path.is_file():
        raise InputError(f"video {path}: no such file or folder")
    return FileSource.open(path, fps)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Pictures of a folder, one a frame, all of one size."""

    files: tuple[Path, ...]
    fps: float

    @classmethod
    def open(cls, folder: Path, fps: float) -> "FolderSource":
        """The folder's pictures, by the suffix of their names; InputError if there are none."""
        files = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not files:
            raise InputError(
                f"video {folder}: no frames in this folder; expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
            )
        return cls(tuple(sorted(files, key=_by_number)), fps)

    @property
    def total_frames(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t rows cols 3"]:
        """The pictures at these indices; InputError if one does not decode or differs in size."""
        frames = [np.asarray(over_white(load_picture(self.files[index]))) for index in indices]
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape != frames[0].shape:
                raise InputError(
                    f"video frame {self.files[index]} has {frame.shape[1]}x{frame.shape[0]} pixels; expected "
                    f"{frames[0].shape[1]}x{frames[0].shape[0]} as in {self.files[indices[0]].name}"
                )
        return np.stack(frames)


@dataclasses.dataclass(frozen=True)
class FileSource:
    """The first video stream of a file."""

    path: Path
    total_frames: int
    fps: float

    @classmethod
    def open(cls, path: Path, fps: float | None) -> "FileSource":
        """Reads the file's length and rate; frames are counted by decoding where the file's header does not say.

        Raises InputError without PyAV, and for a file that it cannot read or that has no frames.
        """
        av = _pyav(path)
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                rate = float(stream.average_rate or 0)
                total = int(stream.frames)
            total = total if total > 0 else sum(1 for _ in _decode(av, path))
        except av.FFmpegError as error:
            raise _unreadable(path, error) from None
        if total == 0:
            raise InputError(f"video {path}: no frames in this file; give another video")
        return cls(path, total, fps or rate or DEFAULT_FPS)

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t rows cols 3"]:
        """Decodes up to the last of these indices and keeps those frames.

        A file that holds fewer frames than its header says repeats its last frame.  Raises InputError if decoding
        fails, or gives none.
        """
        av = _pyav(self.path)
        wanted: set[int] = set(indices)
        kept: dict[int, np.ndarray] = {}
        last: Any = None
        try:
            for index, frame in enumerate(_decode(av, self.path)):
                last = frame
                if index in wanted:
                    kept[index] = frame.to_ndarray(format="rgb24")
                if index >= max(indices):
                    break
        except av.FFmpegError as error:
            raise _unreadable(self.path, error) from None
        if last is None:
            raise InputError(f"video {self.path}: no frames in this file; give another video")
        for index in wanted - kept.keys():
            kept[index] = last.to_ndarray(format="rgb24")
        return np.stack([kept[index] for index in indices])


def _pyav(path: Path) -> Any:
    """The module ``av``; InputError if it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError:
        raise InputError(
            f"video {path}: reading video files needs PyAV, which is not installed; run pip install "
            "'mammoth-jax[video]', or give a folder of frames"
        ) from None


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise InputError(f"video {path}: no video in this file; expected a video stream")
    return container.streams.video[0]


def _decode(av: Any, path: Path) -> Iterator[Any]:
    """Decoded frames in the order in which they are shown."""
    with av.open(str(path)) as container:
        yield from container.decode(_video_stream(container, path))


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"video {path}: does not decode ({error}); convert it, or give a folder of frames")


def _by_number(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of a file's name in which runs of digits count as numbers."""
    parts = re.split(r"([0-9]+)", file.name.lower())
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts], file.name
