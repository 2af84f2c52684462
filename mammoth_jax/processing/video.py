"""Videos to the patches that a vision tower reads: which frames, at which size, at which times.

The two families of towers differ in two rules, which are objects here:

=============== ============================================== =================================================
rule            frames taken of ``total``                      bounds on the area after resizing
=============== ============================================== =================================================
Qwen3VLRule     evenly from the first to the last              of all frames together, the clip
Qwen25VLRule    frame ``floor(i total / n)``, ``n`` even       of each frame
=============== ============================================== =================================================

Frames are resized by :mod:`mammoth_jax.processing.frame_resize` and cut as in :mod:`mammoth_jax.processing.vision`.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Int, UInt8
from mammoth_jax.processing.frame_resize import resize_frames
from mammoth_jax.processing.video_source import VideoSource, open_video
from mammoth_jax.processing.vision import (
    CLIP_MEAN,
    CLIP_STD,
    PREPROCESSOR_FILE,
    Patches,
    VisionProcessorConfig,
    check_shape,
    config_from_released,
    cut_patches,
    fit_area,
    read_settings,
    token_size,
)

VIDEO_PREPROCESSOR_FILE = "video_preprocessor_config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameRate:
    """How many frames of a video are wanted.

    Attributes:
        fps: frames taken a second.
        min_frames: least number of frames, if the video has as many.
        max_frames: largest number of frames.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768

    def __post_init__(self) -> None:
        if not math.isfinite(self.fps) or self.fps <= 0:
            raise InputError(f"video processor: fps {self.fps}: expected a positive number")
        if not 1 <= self.min_frames <= self.max_frames:
            raise InputError(
                f"video processor: min_frames {self.min_frames}, max_frames {self.max_frames}: expected "
                "1 <= min_frames <= max_frames"
            )


@runtime_checkable
class VideoRule(Protocol):
    """What differs between the families."""

    def frame_indices(
        self, total: int, fps: float, rate: FrameRate, temporal_patch_size: int
    ) -> Int[np.ndarray, " t"]:
        """Indices of the frames to take from a video of ``total`` frames at ``fps`` frames a second."""
        ...

    def size(self, frames: int, height: int, width: int, vision: VisionProcessorConfig) -> tuple[int, int]:
        """Height and width to which ``frames`` frames are resized."""
        ...


@dataclasses.dataclass(frozen=True)
class Qwen3VLRule:
    """Qwen3-VL: frames evenly from the first to the last; a budget of pixels for the whole clip."""

    def frame_indices(
        self, total: int, fps: float, rate: FrameRate, temporal_patch_size: int
    ) -> Int[np.ndarray, " t"]:
        """``round(i (total - 1) / (n - 1))``, halves to even."""
        wanted = int(total / fps * rate.fps)
        count = min(max(wanted, rate.min_frames), rate.max_frames, total)
        return np.linspace(0, total - 1, count).round().astype(np.int64)

    def size(self, frames: int, height: int, width: int, vision: VisionProcessorConfig) -> tuple[int, int]:
        """Sides rounded to tokens, then scaled so that the clip's pixels are within the bounds."""
        factor, time = vision.factor, vision.temporal_patch_size
        frames = max(frames, time)  # a single frame fills its patch
        check_shape(height, width)
        if height < factor or width < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        return fit_area(
            (height, width),
            (round(height / factor) * factor, round(width / factor) * factor),
            factor=factor,
            frames=frames,
            rounded_frames=round(frames / time) * time,
            min_pixels=vision.min_pixels,
            max_pixels=vision.max_pixels,
        )


@dataclasses.dataclass(frozen=True)
class Qwen25VLRule:
    """Qwen2.5-VL: frames that fill whole patches, from the first on; a budget of pixels for each frame."""

    def frame_indices(
        self, total: int, fps: float, rate: FrameRate, temporal_patch_size: int
    ) -> Int[np.ndarray, " t"]:
        """``floor(i total / n)`` with ``n`` a multiple of the frames a patch, or all frames of a shorter video."""
        most = min(rate.max_frames, total) // temporal_patch_size * temporal_patch_size
        wanted = min(max(total / fps * rate.fps, rate.min_frames), most)
        count = math.floor(wanted / temporal_patch_size) * temporal_patch_size
        if count == 0:
            return np.arange(min(total, rate.max_frames), dtype=np.int64)
        return np.arange(count, dtype=np.int64) * total // count

    def size(self, frames: int, height: int, width: int, vision: VisionProcessorConfig) -> tuple[int, int]:
        """A picture's rule for each frame."""
        return token_size(
            height, width, factor=vision.factor, min_pixels=vision.min_pixels, max_pixels=vision.max_pixels
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoProcessorConfig:
    """What is done to a video: ``vision`` to pixels, ``rate`` and ``rule`` choose frames and sizes."""

    vision: VisionProcessorConfig
    rule: VideoRule
    rate: FrameRate = FrameRate()

    @classmethod
    def from_folder(cls, folder: Path, default: "VideoProcessorConfig") -> "VideoProcessorConfig":
        """The video processor of a checkpoint folder; ``default`` where its files do not say.

        As for the released processors, the picture's file counts where there is none for video.  Raises InputError for
        a file that asks for something that is not done here.
        """
        settings, file = read_settings(
            folder, "video_processor", (VIDEO_PREPROCESSOR_FILE, PREPROCESSOR_FILE)
        )
        if settings.get("num_frames") is not None:
            raise InputError(f"{file}: num_frames {settings['num_frames']}; expected null, with fps instead")
        found = {k: settings[k] for k in ("fps", "min_frames", "max_frames") if settings.get(k) is not None}
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{file}: {name} {value!r}: expected a number")
        try:
            rate = dataclasses.replace(
                default.rate, **{k: float(v) if k == "fps" else int(v) for k, v in found.items()}
            )
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        return dataclasses.replace(
            default, rate=rate, vision=config_from_released(settings, default.vision, file)
        )


QWEN3VL_VIDEO = VideoProcessorConfig(
    vision=VisionProcessorConfig(patch_size=16, min_pixels=4096, max_pixels=25_165_824), rule=Qwen3VLRule()
)
QWEN25VL_VIDEO = VideoProcessorConfig(
    vision=VisionProcessorConfig(
        patch_size=14, min_pixels=128 * 28 * 28, max_pixels=768 * 28 * 28, mean=CLIP_MEAN, std=CLIP_STD
    ),
    rule=Qwen25VLRule(),
)


def family_videos(
    family: str, patch_size: int, merge_size: int, temporal_patch_size: int
) -> VideoProcessorConfig:
    """What a tower of these patches reads where no file says: the release's for its own patch size.

    Another patch size gets the family's rule and colours and areas from 4 tokens: to 1024 of them for a clip where the
    rule counts clips (nano), to 64 for a frame where it counts frames.
    """
    base = {"qwen3_vl": QWEN3VL_VIDEO, "qwen2_5_vl": QWEN25VL_VIDEO}[family]
    patches = {"patch_size": patch_size, "merge_size": merge_size, "temporal_patch_size": temporal_patch_size}
    if patch_size != base.vision.patch_size:
        token = (patch_size * merge_size) ** 2
        most = 1024 if family == "qwen3_vl" else 64
        patches |= {"min_pixels": 4 * token, "max_pixels": most * token}
    return dataclasses.replace(base, vision=dataclasses.replace(base.vision, **patches))


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames taken from a video.

    Attributes:
        frames: bytes of RGB.
        indices: where in the video each was.
        total_frames: frames of the video.
        fps: frames a second of the video.
    """

    frames: UInt8[np.ndarray, "t rows cols 3"]
    indices: tuple[int, ...]
    total_frames: int
    fps: float


@dataclasses.dataclass(frozen=True)
class VideoPatches:
    """A video for the vision tower and for the prompt.

    Attributes:
        patches: patches of all frames; ``patches.grid.frames`` steps in time.
        timestamps: seconds, one for each step in time (what Qwen3-VL's prompt says).
        seconds_per_grid: seconds that one step in time stands for (what Qwen2.5-VL's positions need).
    """

    patches: Patches
    timestamps: tuple[float, ...]
    seconds_per_grid: float


def sample_clip(source: VideoSource, config: VideoProcessorConfig = QWEN3VL_VIDEO) -> Clip:
    """The frames of a video that the configuration asks for.

    Raises InputError for a video without frames.
    """
    time = config.vision.temporal_patch_size
    indices = config.rule.frame_indices(source.total_frames, source.fps, config.rate, time)
    frames = source.read(indices.tolist())
    return Clip(frames, tuple(indices.tolist()), source.total_frames, source.fps)


def video_patches(clip: Clip, config: VideoProcessorConfig = QWEN3VL_VIDEO) -> VideoPatches:
    """Patches and times of a clip; frames that are missing to a whole patch repeat the last one.

    Raises InputError for a clip without frames, or whose one side is more than 200 times the other.
    """
    if not len(clip.frames):
        raise InputError("video without frames: expected at least one; give another video")
    vision = config.vision
    count, height, width, _ = clip.frames.shape
    new_height, new_width = config.rule.size(count, height, width, vision)
    resized = resize_frames(clip.frames, new_height, new_width)
    to_bytes = np.float32(1 / vision.rescale_factor)
    mean, std = (np.asarray(values, np.float32) * to_bytes for values in (vision.mean, vision.std))
    patches = cut_patches((resized.astype(np.float32) - mean) / std, vision)
    return VideoPatches(
        patches=patches,
        timestamps=timestamps(clip.indices, clip.fps, vision.temporal_patch_size),
        seconds_per_grid=vision.temporal_patch_size / (count / clip.total_frames * clip.fps),
    )


def timestamps(indices: Sequence[int], fps: float, temporal_patch_size: int = 2) -> tuple[float, ...]:
    """Seconds of each step in time: the mean of its first and last frame's, the last frame filling the last step."""
    filled = [*indices, *[indices[-1]] * (-len(indices) % temporal_patch_size)]
    seconds = [index / fps for index in filled]
    return tuple(
        (seconds[i] + seconds[i + temporal_patch_size - 1]) / 2
        for i in range(0, len(seconds), temporal_patch_size)
    )


def load_video(
    path: Path, config: VideoProcessorConfig = QWEN3VL_VIDEO, fps: float | None = None
) -> VideoPatches:
    """A video file's or a folder of frames' patches; ``fps`` as :func:`open_video` takes it.

    Raises InputError for what does not decode, has no frames, or has an extreme shape.
    """
    return video_patches(sample_clip(open_video(path, fps), config), config)
