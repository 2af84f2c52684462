"""Pictures to the patches that a vision tower reads, as the released Qwen processors make them.

A picture is put over white, resized (bicubic, Pillow's) to sides that divide by ``patch_size * merge_size``, scaled to
[0, 1], normalised, and cut into patches::

    pixels [frames, rows, cols, 3]  ->  rows [frames/T * rows/P * cols/P, 3 * T * P * P]

with ``P`` the patch's side and ``T`` frames a patch (a single picture is repeated).  Patches come in the order of the
tokens that they merge into: (time, row of tokens, column of tokens, row within the token, column within the token);
the values of a patch in the order (channel, frame, row, column).
"""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import read_json_object
from mammoth_jax.core.types import Float, UInt8
from mammoth_jax.processing.image import MAX_ASPECT, eight_bits

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
BICUBIC = 3
"""Pillow's number for the bicubic filter, which is how a processor's file names it."""


class Grid(NamedTuple):
    """Patches along time, height and width: a row of ``grid_thw``."""

    frames: int
    rows: int
    cols: int

    def tokens(self, merge_size: int) -> int:
        """Tokens of the decoder that these patches merge into."""
        return self.frames * self.frame_tokens(merge_size)

    def frame_tokens(self, merge_size: int) -> int:
        """Tokens of one step in time."""
        return (self.rows // merge_size) * (self.cols // merge_size)


@dataclasses.dataclass(frozen=True)
class Patches:
    """One picture's or one video's patches.

    Attributes:
        values: float32, in the order of the module's description.
        grid: how many there are along each axis.
    """

    values: Float[np.ndarray, "n p"]
    grid: Grid


def _check_setting(name: str, value: Any) -> None:
    """InputError unless ``value`` can be the processor's setting ``name``."""
    if name in ("mean", "std"):
        colour = isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))
        good, expected = colour and (name == "mean" or all(value)), "three numbers, std without zeros"
    elif name == "rescale_factor":
        good, expected = _is_number(value) and value > 0, "a positive number"
    else:
        good, expected = (
            isinstance(value, int) and not isinstance(value, bool) and value > 0,
            "a positive integer",
        )
    if not good:
        raise InputError(f"vision processor: {name} {value!r}: expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionProcessorConfig:
    """What is done to pixels.

    Attributes:
        patch_size: side of a patch in pixels.
        merge_size: patches along a side that merge into one token.
        temporal_patch_size: frames a patch.
        min_pixels: least area after resizing; a video's rule says whether of a frame or of the clip.
        max_pixels: largest area after resizing.
        mean: subtracted from pixels in [0, 1], a channel each.
        std: what they are then divided by.
        rescale_factor: brings bytes to [0, 1].
    """

    patch_size: int
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int
    max_pixels: int
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    rescale_factor: float = 1 / 255

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_setting(field.name, getattr(self, field.name))
        if self.max_pixels < self.min_pixels:
            raise InputError(
                f"vision processor: max_pixels {self.max_pixels}: expected at least min_pixels {self.min_pixels}"
            )

    @property
    def factor(self) -> int:
        """What both sides of a resized picture divide by."""
        return self.patch_size * self.merge_size

    @property
    def patch_values(self) -> int:
        """Values of one patch."""
        return len(self.mean) * self.temporal_patch_size * self.patch_size**2

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a picture is resized (:func:`token_size`)."""
        return token_size(
            height, width, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )

    def within(self, side: int | None) -> "VisionProcessorConfig":
        """The same for pictures of the area of a square of ``side`` pixels at most, but for the least area."""
        area = self.max_pixels if side is None else max(side * side, self.min_pixels)
        return dataclasses.replace(self, max_pixels=min(area, self.max_pixels))

    @classmethod
    def from_folder(cls, folder: Path, default: "VisionProcessorConfig") -> "VisionProcessorConfig":
        """The image processor of a checkpoint folder; ``default`` where the folder, or its file, does not say.

        Raises InputError for a file that asks for something that is not done here.
        """
        return read_config(default, folder, "image_processor", (PREPROCESSOR_FILE,))

    def to_released(self) -> dict[str, Any]:
        """Content of a ``preprocessor_config.json`` from which :meth:`from_folder` reads these settings."""
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": self.patch_size,
            "merge_size": self.merge_size,
            "temporal_patch_size": self.temporal_patch_size,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "rescale_factor": self.rescale_factor,
            "resample": BICUBIC,
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
        }


QWEN3VL_IMAGES = VisionProcessorConfig(patch_size=16, min_pixels=256 * 256, max_pixels=4096 * 4096)
QWEN25VL_IMAGES = VisionProcessorConfig(
    patch_size=14, min_pixels=56 * 56, max_pixels=16384 * 28 * 28, mean=CLIP_MEAN, std=CLIP_STD
)


def family_images(
    family: str, patch_size: int, merge_size: int, temporal_patch_size: int
) -> VisionProcessorConfig:
    """What a tower of these patches reads where no file says: the release's for its own patch size.

    Another patch size gets the family's colours and areas from one token to 16 x 16 of them (nano).
    """
    base = {"qwen3_vl": QWEN3VL_IMAGES, "qwen2_5_vl": QWEN25VL_IMAGES}[family]
    patches = {"patch_size": patch_size, "merge_size": merge_size, "temporal_patch_size": temporal_patch_size}
    if patch_size == base.patch_size:
        return dataclasses.replace(base, **patches)
    token = (patch_size * merge_size) ** 2
    return dataclasses.replace(base, **patches, min_pixels=token, max_pixels=256 * token)


def token_size(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Sides rounded to multiples of ``factor``, then scaled so that the area is within the bounds.

    Unlike :func:`mammoth_jax.processing.image.smart_resize`, a side that rounds to nothing makes the area 0, so that a
    thin picture is scaled to the least area; the released image processor does it so.

    Raises:
      InputError: a side is not positive, or one side is more than 200 times the other.
    """
    check_shape(height, width)
    new_height, new_width = (round(side / factor) * factor for side in (height, width))
    return fit_area(
        (height, width),
        (new_height, new_width),
        factor=factor,
        frames=1,
        rounded_frames=1,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )


def fit_area(
    sides: tuple[int, int],
    rounded: tuple[int, int],
    *,
    factor: int,
    frames: int,
    rounded_frames: int,
    min_pixels: int,
    max_pixels: int,
) -> tuple[int, int]:
    """``rounded`` if its area over all frames is within the bounds, else ``sides`` scaled to the bound it breaks."""
    area = rounded_frames * rounded[0] * rounded[1]
    if area > max_pixels:
        shrink = math.sqrt(frames * sides[0] * sides[1] / max_pixels)
        height, width = (max(factor, math.floor(side / shrink / factor) * factor) for side in sides)
        return height, width
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (frames * sides[0] * sides[1]))
        height, width = (math.ceil(side * grow / factor) * factor for side in sides)
        return height, width
    return rounded


def check_shape(height: int, width: int) -> None:
    """InputError unless both sides are positive and neither is more than 200 times the other."""
    if height < 1 or width < 1:
        raise InputError(f"picture of {width}x{height} pixels: both sides must be positive")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"picture of {width}x{height} pixels: one side is more than {MAX_ASPECT} times the other; crop it first"
        )


def load_picture(source: Path | bytes) -> Image.Image:
    """A picture from a file or its bytes, turned upright as its EXIF orientation says.

    Raises InputError for what Pillow cannot decode whole.
    """
    name = f"picture {source}" if isinstance(source, Path) else f"picture of {len(source)} bytes"
    try:
        picture = Image.open(source if isinstance(source, Path) else io.BytesIO(source))
        picture.load()
        return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder; name a picture file") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture that Pillow can read; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error}; make it smaller first") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:  # what Pillow's decoders raise for broken files
        raise InputError(f"{name}: does not decode ({error}); save or copy it again") from None


def over_white(picture: Image.Image) -> Image.Image:
    """The picture in RGB, transparent pixels blended with white in Pillow's integer arithmetic."""
    picture = eight_bits(picture)
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")


def image_patches(picture: Image.Image, config: VisionProcessorConfig = QWEN3VL_IMAGES) -> Patches:
    """A picture's patches.

    Raises:
      InputError: one side is more than 200 times the other.
    """
    return patches_of(for_tower(picture, config), config)


def for_tower(picture: Image.Image, config: VisionProcessorConfig) -> UInt8[np.ndarray, "rows cols 3"]:
    """A picture in RGB at the size at which the tower reads it.

    Raises:
      InputError: one side is more than 200 times the other.
    """
    height, width = config.size(picture.height, picture.width)
    return np.asarray(over_white(picture).resize((width, height), Image.Resampling.BICUBIC))


def patches_of(picture: UInt8[np.ndarray, "rows cols 3"], config: VisionProcessorConfig) -> Patches:
    """The patches of a picture that has the tower's size, normalised.

    Bytes have 256 values, so these are normalised, and looked up once the bytes are cut.
    """
    scaled = (np.arange(256) * np.float64(config.rescale_factor)).astype(np.float32)
    mean, std = np.asarray(config.mean, np.float32), np.asarray(config.std, np.float32)
    normalised = (scaled[:, None] - mean) / std
    cells, grid = _cut(picture[None], config)
    values = np.empty(cells.shape, np.float32)
    for channel, one in enumerate(np.split(cells, len(config.mean), axis=1)):
        part = slice(channel * one.shape[1], (channel + 1) * one.shape[1])
        values[:, part] = normalised[:, channel][one]
    return Patches(values=values, grid=grid)


def cut_patches(pixels: Float[np.ndarray, "t rows cols 3"], config: VisionProcessorConfig) -> Patches:
    """Cuts normalised frames into patches; the last frame is repeated to fill the last patch's time."""
    values, grid = _cut(pixels, config)
    return Patches(values=values, grid=grid)


def _cut(pixels: np.ndarray, config: VisionProcessorConfig) -> tuple[np.ndarray, Grid]:
    """Frames, ``[t, rows, cols, 3]``, as the values of patches, ``[n, p]``."""
    time, patch, merge = config.temporal_patch_size, config.patch_size, config.merge_size
    missing = -len(pixels) % time
    if missing:
        pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
    frames, height, width, channels = pixels.shape
    grid = Grid(frames // time, height // patch, width // patch)
    cells = pixels.reshape(
        grid.frames, time, grid.rows // merge, merge, patch, grid.cols // merge, merge, patch, channels
    )
    return cells.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels * time * patch * patch), grid


def read_config(
    default: VisionProcessorConfig, folder: Path, nested: str, files: tuple[str, ...]
) -> VisionProcessorConfig:
    """``default`` with what a folder's files say (:func:`read_settings`)."""
    settings, file = read_settings(folder, nested, files)
    return config_from_released(settings, default, file)


def read_settings(folder: Path, nested: str, files: tuple[str, ...]) -> tuple[dict[str, Any], Path]:
    """A processor's settings: the section ``nested`` of ``processor_config.json``, else the first of ``files``.

    Empty if the folder has none of them.  Raises InputError for a file that is not a JSON object.
    """
    common = folder / PROCESSOR_FILE
    if common.is_file() and nested in (content := read_json_object(common)):
        section = content[nested]
        if not isinstance(section, dict):
            raise InputError(f"{common}: {nested} is {section!r}; expected an object")
        return section, common
    for name in files:
        if (folder / name).is_file():
            return read_json_object(folder / name), folder / name
    return {}, folder


def config_from_released(
    settings: dict[str, Any], default: VisionProcessorConfig, file: Path
) -> VisionProcessorConfig:
    """``default`` with a processor file's settings over it; InputError for settings that are not followed here."""
    for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if settings.get(name, True) is False:
            raise InputError(f"{file}: {name} is false; only processors that do it are supported")
    if settings.get("resample", BICUBIC) != BICUBIC:
        raise InputError(f"{file}: resample {settings['resample']!r}; expected {BICUBIC} (bicubic)")
    size = settings.get("size") or {}
    if not isinstance(size, dict):
        raise InputError(f"{file}: size {size!r}; expected an object with shortest_edge and longest_edge")
    found = {
        "patch_size": settings.get("patch_size"),
        "merge_size": settings.get("merge_size"),
        "temporal_patch_size": settings.get("temporal_patch_size"),
        "min_pixels": _first(settings.get("min_pixels"), size.get("shortest_edge"), size.get("min_pixels")),
        "max_pixels": _first(settings.get("max_pixels"), size.get("longest_edge"), size.get("max_pixels")),
        "mean": _tuple(settings.get("image_mean")),
        "std": _tuple(settings.get("image_std")),
        "rescale_factor": settings.get("rescale_factor"),
    }
    found = {name: value for name, value in found.items() if value is not None}
    try:
        for name, value in found.items():
            _check_setting(name, value)
            if name in ("mean", "std"):
                found[name] = tuple(map(float, value))
        return dataclasses.replace(default, **found)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values
