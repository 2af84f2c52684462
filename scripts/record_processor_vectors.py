"""Records what the released picture and video processors compute, for the tests of our own.

    python scripts/record_processor_vectors.py tests/vectors/processing

Needs ``transformers``, ``torch`` and ``torchvision``; nothing of ours.  Writes ``images.npz`` and ``videos.npz``: the
README beside them says what is in them.
"""

import importlib.util
import io
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def declare_torchvision_operators() -> None:
    """Lets torchvision load where its compiled operators, which no processor calls, do not fit this torch."""
    found = importlib.util.find_spec("torchvision")
    assert found is not None and found.submodule_search_locations
    source = (Path(found.submodule_search_locations[0]) / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(re.findall(r'(?:torchvision::|register_meta\(")(\w+)', source))):
        library.define(f"{name}(Tensor x) -> Tensor")
    globals()["_library"] = library  # its operators live as long as it does


try:
    import torchvision  # noqa: F401
except RuntimeError:
    for loaded in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[loaded]
    declare_torchvision_operators()

from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as images  # noqa: E402
from transformers.models.qwen2_vl import video_processing_qwen2_vl as videos25  # noqa: E402
from transformers.models.qwen3_vl import video_processing_qwen3_vl as videos3  # noqa: E402
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor  # noqa: E402
from transformers.video_utils import VideoMetadata  # noqa: E402

HALF = [0.5, 0.5, 0.5]
IMAGE_FAMILIES = {
    "qwen3vl": dict(
        patch_size=16, image_mean=HALF, image_std=HALF, min_pixels=256 * 256, max_pixels=4096 * 4096
    ),
    "qwen25vl": dict(patch_size=14, min_pixels=56 * 56, max_pixels=16384 * 28 * 28),
}
"""The released checkpoints' settings; the second family's mean and deviation are the class's."""
BOUNDS = dict(min_pixels=1000, max_pixels=2500)
"""Bounds of most recorded pictures, so that they are small."""


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Waves in few levels, with sharp edges, uint8 ``[height, width, channels]``."""
    y, x, c = np.ogrid[:height, :width, :channels]
    waves = 127 + 90 * np.sin(y / 7 + 2 * c + seed) * np.cos(x / (5 + c)) + 60 * ((x // 9 + y // 11) % 2)
    return (waves // 15 * 15 + 3 * c).clip(0, 255).astype(np.uint8)


def pictures() -> dict[str, Image.Image]:
    """Pictures of all kinds that a file may hold."""
    rgb = Image.fromarray(picture(67, 101, 3, 0))
    transparent = Image.fromarray(picture(50, 33, 4, 1), "RGBA")
    palette = Image.fromarray(picture(40, 70, 3, 2)).quantize(16)
    palette.info["transparency"] = 3
    return {
        "rgb_shrunk": rgb,
        "rgb_enlarged": rgb.crop((0, 0, 41, 23)),
        "rgb_exact_32": rgb.crop((0, 0, 64, 32)),
        "rgb_exact_28": rgb.crop((0, 0, 56, 28)),
        "rgb_thin": Image.fromarray(picture(3, 60, 3, 3)),
        "rgba": transparent,
        "grey": Image.fromarray(picture(45, 61, 1, 4)[..., 0]),
        "grey_alpha": Image.fromarray(picture(30, 30, 2, 5), "LA"),
        "palette_transparent": palette,
        "one_bit": Image.fromarray(picture(60, 50, 1, 6)[..., 0]).convert("1"),
    }


def put(into: dict, name: str, values: np.ndarray) -> None:
    """Patches ``[n, 3 * frames * pixels]`` in float32, losslessly: a channel's distinct values, and each one's number.

    The numbers are stored as differences along a patch, modulo 256.
    """
    assert values.dtype == np.float32
    channels = values.reshape(len(values), 3, -1)
    levels = np.zeros((3, 256), np.float32)
    codes = np.zeros(channels.shape, np.uint8)
    for channel in range(3):
        distinct, numbers = np.unique(channels[:, channel], return_inverse=True)
        levels[channel, : len(distinct)] = distinct
        codes[:, channel] = numbers.reshape(len(values), -1)
    into[f"{name}/levels"], into[f"{name}/codes"] = levels, np.diff(codes, axis=-1, prepend=np.uint8(0))


def sizes(function, rows) -> np.ndarray:
    """``function``'s height and width of each row of arguments, (0, 0) where it refuses."""
    out = []
    for row in rows:
        try:
            out.append(function(*map(int, row)))
        except ValueError:
            out.append((0, 0))
    return np.asarray(out, np.int32)


def random_sides(rng: np.random.Generator, count: int) -> np.ndarray:
    """Heights and widths, from 1 to some thousands, evenly in their logarithm."""
    return np.exp(rng.uniform(0, 8.6, (count, 2))).astype(np.int32)


def record_images() -> dict[str, np.ndarray]:
    """Patches and sizes of the picture processor."""
    out: dict[str, np.ndarray] = {}
    for name, image in pictures().items():
        data = io.BytesIO()
        image.save(data, "PNG")
        out[f"{name}/png"] = np.frombuffer(data.getvalue(), np.uint8)
    one = io.BytesIO()
    Image.fromarray(picture(1, 1, 3, 7)).save(one, "PNG")
    out["one_pixel/png"] = np.frombuffer(one.getvalue(), np.uint8)
    for family, settings in IMAGE_FAMILIES.items():
        small = images.Qwen2VLImageProcessorPil(**{**settings, **BOUNDS})
        released = images.Qwen2VLImageProcessorPil(**settings)
        for key in [k.removesuffix("/png") for k in out if k.endswith("/png")]:
            image = Image.open(io.BytesIO(out[f"{key}/png"].tobytes()))
            done = (released if key == "one_pixel" else small)(image, return_tensors="np")
            put(out, f"{family}/{key}", done["pixel_values"])
            out[f"{family}/{key}/grid"] = done["image_grid_thw"].astype(np.int32)
        rows = random_sides(np.random.default_rng(8), 200)
        factor = settings["patch_size"] * 2
        bounds = (settings["min_pixels"], settings["max_pixels"])
        out[f"{family}/sides"] = rows
        out[f"{family}/sizes"] = sizes(
            lambda h, w, f=factor, b=bounds: images.smart_resize(h, w, f, *b), rows
        )
    return out


def video_processors() -> dict:
    """Processors with the released rates and with bounds that keep the recorded clips small."""
    three = dict(image_mean=HALF, image_std=HALF, size=dict(shortest_edge=2000, longest_edge=4500))
    two = dict(do_sample_frames=True, fps=2, size=dict(shortest_edge=784, longest_edge=1000))
    return {
        "qwen3vl": videos3.Qwen3VLVideoProcessor(**three, cap_pixels_per_frame=False),
        "qwen25vl": videos25.Qwen2VLVideoProcessor(**two, cap_pixels_per_frame=False),
    }


def record_videos() -> dict[str, np.ndarray]:
    """Chosen frames, sizes, times and patches of the video processors."""
    out: dict[str, np.ndarray] = {}
    clips = {"resized": (9, 30, 40, 4.0), "odd": (5, 50, 30, 2.0), "exact": (6, 32, 32, 3.0)}
    rng = np.random.default_rng(9)
    videos = [
        (int(t), float(f))
        for t, f in zip(
            rng.integers(4, 300, 30), rng.choice([1, 2, 7.5, 23.976, 24, 30, 60], 30), strict=True
        )
    ]
    videos += [(4, 24.0), (5, 24.0), (7, 1.0), (1700, 2.0), (3000, 24.0)]
    for family, processor in video_processors().items():
        for name, (frames, height, width, fps) in clips.items():
            if name == "exact" and family == "qwen25vl":
                height, width = 28, 28
            pixels = np.stack([picture(height, width, 3, 10 + i) for i in range(frames)])
            metadata = VideoMetadata(total_num_frames=frames, fps=fps)
            done = processor(pixels, video_metadata=metadata, return_metadata=True, return_tensors="pt")
            meta = done["video_metadata"][0]
            key = f"{family}/{name}"
            out[f"{key}/frames"] = pixels
            out[f"{key}/fps"] = np.float64(fps)
            out[f"{key}/indices"] = np.asarray(meta.frames_indices, np.int32)
            out[f"{key}/grid"] = done["video_grid_thw"].numpy().astype(np.int32)
            out[f"{key}/seconds_per_grid"] = np.float64(processor.temporal_patch_size / meta.sampled_fps)
            out[f"{key}/timestamps"] = np.asarray(
                Qwen3VLProcessor._calculate_timestamps(None, np.asarray(meta.frames_indices), fps)
            )
            put(out, key, done["pixel_values_videos"].numpy())
        chosen = [
            np.asarray(
                processor.sample_frames(VideoMetadata(total_num_frames=total, fps=fps), fps=2), np.int32
            )
            for total, fps in videos
        ]
        out[f"{family}/totals"] = np.asarray([total for total, _ in videos], np.int32)
        out[f"{family}/rates"] = np.asarray([fps for _, fps in videos])
        out[f"{family}/counts"] = np.asarray([len(indices) for indices in chosen], np.int32)
        out[f"{family}/chosen"] = np.concatenate(chosen)
    rows = np.concatenate([rng.integers(2, 100, (200, 1)), random_sides(rng, 200)], axis=1).astype(np.int32)
    out["qwen3vl/sides"] = rows
    out["qwen3vl/sizes"] = sizes(
        lambda t, h, w: videos3.smart_resize(t, h, w, 2, 32, min_pixels=4096, max_pixels=25165824), rows
    )
    out["qwen25vl/sides"] = rows
    out["qwen25vl/sizes"] = sizes(lambda t, h, w: videos25.smart_resize(h, w, 28, 128 * 784, 768 * 784), rows)
    return out


def main() -> None:
    """Writes both files into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "images.npz", **record_images())
    np.savez_compressed(folder / "videos.npz", **record_videos())


if __name__ == "__main__":
    main()
