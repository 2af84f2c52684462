"""Videos to patches: the released processors' recorded frames, sizes, times and values; files, folders, bad videos."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing import video
from mammoth_jax.processing.video import (
    QWEN3VL_VIDEO,
    QWEN25VL_VIDEO,
    Clip,
    FrameRate,
    VideoProcessorConfig,
    load_video,
    sample_clip,
    timestamps,
    video_patches,
)
from mammoth_jax.processing.video_source import open_video
from tests.processing.nano_processors import NANO_VIDEO

RECORDED = np.load(Path(__file__).parent.parent / "vectors" / "processing" / "videos.npz")
FAMILIES = {"qwen3vl": QWEN3VL_VIDEO, "qwen25vl": QWEN25VL_VIDEO}
SMALL = {"qwen3vl": (2000, 4500), "qwen25vl": (784, 1000)}


def recorded_values(name):
    """Patches as the recorder stored them: a number for each distinct value of a channel, in differences."""
    codes = np.cumsum(RECORDED[f"{name}/codes"], axis=-1, dtype=np.uint8)
    levels = RECORDED[f"{name}/levels"]
    return np.stack([levels[channel][codes[:, channel]] for channel in range(3)], axis=1).reshape(
        len(codes), -1
    )


def frames(count, height=32, width=48):
    """Frames of one colour each, so that lossy codecs keep them apart."""
    return [np.full((height, width, 3), (i * 20 % 256, 80, 200 - i * 5), np.uint8) for i in range(count)]


def write_folder(folder, pictures, name="frame_{}.png"):
    folder.mkdir(exist_ok=True)
    for i, values in enumerate(pictures):
        Image.fromarray(values).save(folder / name.format(i))
    return folder


def write_file(path, pictures, codec, pixel_format, fps=Fraction(4)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2] if pictures else (32, 48)
        stream.pix_fmt = pixel_format
        container.start_encoding()
        for values in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["resized", "odd", "exact"])
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_and_times_equal_the_released_processors(family, name, tmp_path):
    least, most = SMALL[family]
    size = {"size": {"shortest_edge": least, "longest_edge": most}}
    (tmp_path / video.VIDEO_PREPROCESSOR_FILE).write_text(json.dumps(size))
    config = VideoProcessorConfig.from_folder(tmp_path, FAMILIES[family])
    key = f"{family}/{name}"
    source = write_folder(tmp_path / "frames", RECORDED[f"{key}/frames"])
    clip = sample_clip(open_video(source, float(RECORDED[f"{key}/fps"])), config)
    assert list(clip.indices) == RECORDED[f"{key}/indices"].tolist()
    done = video_patches(clip, config)
    assert [list(done.patches.grid)] == RECORDED[f"{key}/grid"].tolist()
    assert list(done.timestamps) == RECORDED[f"{key}/timestamps"].tolist()
    assert done.seconds_per_grid == RECORDED[f"{key}/seconds_per_grid"]
    np.testing.assert_array_equal(done.patches.values, recorded_values(key))


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_frames_equal_the_released_processors(family):
    config = FAMILIES[family]
    counts = RECORDED[f"{family}/counts"]
    chosen = np.split(RECORDED[f"{family}/chosen"], np.cumsum(counts)[:-1])
    rows = zip(
        RECORDED[f"{family}/totals"].tolist(), RECORDED[f"{family}/rates"].tolist(), chosen, strict=True
    )
    for total, fps, expected in rows:
        indices = config.rule.frame_indices(total, fps, config.rate, config.vision.temporal_patch_size)
        # The release's arithmetic sometimes adds an index just past the end, with which it then fails.
        assert indices.tolist() == expected[expected < total].tolist()
    assert counts.max() == 768


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_equal_the_released_processors(family):
    config = FAMILIES[family]
    rows = zip(RECORDED[f"{family}/sides"].tolist(), RECORDED[f"{family}/sizes"].tolist(), strict=True)
    for (count, height, width), expected in rows:
        if expected == [0, 0]:
            with pytest.raises(InputError, match="200 times"):
                config.rule.size(count, height, width, config.vision)
        else:
            assert list(config.rule.size(count, height, width, config.vision)) == expected


def test_times_are_the_mean_of_each_pair():
    assert timestamps([0, 3, 5, 8], 4.0) == (0.375, 1.625)
    assert timestamps([0, 3, 6], 2.0) == (0.75, 3.0)


@pytest.mark.parametrize("config", [QWEN3VL_VIDEO, QWEN25VL_VIDEO, NANO_VIDEO])
def test_a_single_frame_is_repeated_to_fill_its_patch(config):
    clip = Clip(np.stack(frames(1)), (0,), total_frames=1, fps=24.0)
    done = video_patches(clip, config)
    assert done.patches.grid.frames == len(done.timestamps) == 1
    halves = done.patches.values.reshape(len(done.patches.values), 3, 2, -1)
    np.testing.assert_array_equal(halves[:, :, 0], halves[:, :, 1])
    for total in (1, 2, 3):
        indices = config.rule.frame_indices(total, 24.0, config.rate, 2)
        assert 1 <= len(indices) <= total
        assert indices.max() < total


def test_a_folders_frames_are_in_the_order_of_their_numbers(tmp_path):
    pictures = frames(12)
    folder = write_folder(tmp_path / "clip", pictures)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"not a frame")
    source = open_video(folder)
    assert (source.total_frames, source.fps) == (12, 24.0)
    np.testing.assert_array_equal(source.read(range(12)), pictures)


def test_a_file_and_a_folder_of_its_frames_give_the_same_patches(tmp_path):
    pictures = frames(9)
    file = write_file(tmp_path / "clip.mkv", pictures, "ffv1", "bgr0")
    folder = write_folder(tmp_path / "clip", pictures)
    source = open_video(file)
    assert (source.total_frames, source.fps) == (9, 4.0)
    of_file, of_folder = load_video(file, NANO_VIDEO), load_video(folder, NANO_VIDEO, fps=4.0)
    assert of_file.timestamps == of_folder.timestamps == (0.375, 1.625)
    assert of_file.seconds_per_grid == of_folder.seconds_per_grid
    np.testing.assert_array_equal(of_file.patches.values, of_folder.patches.values)


def test_a_compressed_file_gives_the_chosen_frames(tmp_path):
    pictures = frames(10)
    source = open_video(write_file(tmp_path / "clip.mp4", pictures, "mpeg4", "yuv420p"), fps=8.0)
    assert (source.total_frames, source.fps) == (10, 8.0)
    read = source.read([0, 3, 9]).astype(int)
    assert np.abs(read - np.stack([pictures[i] for i in (0, 3, 9)])).max() < 12


def test_a_header_that_promises_more_frames_repeats_the_last(tmp_path):
    path = write_file(tmp_path / "clip.mkv", frames(5), "ffv1", "bgr0")
    source = open_video(path)
    promised = type(source)(path=path, total_frames=9, fps=4.0)
    np.testing.assert_array_equal(promised.read([0, 4, 8]), source.read([0, 4, 4]))


def test_without_a_decoder_a_file_is_refused_and_a_folder_is_not(tmp_path, monkeypatch):
    file = write_file(tmp_path / "clip.mkv", frames(4), "ffv1", "bgr0")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"clip\.mkv.*pip install 'mammoth-jax\[video\]'"):
        load_video(file)
    assert load_video(write_folder(tmp_path / "clip", frames(4)), NANO_VIDEO).patches.grid.frames == 2


def test_videos_without_frames_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no frames in this folder"):
        load_video(tmp_path / "empty")
    with pytest.raises(InputError, match="video without frames"):
        video_patches(Clip(np.zeros((0, 32, 32, 3), np.uint8), (), 0, 24.0))
    with pytest.raises(InputError, match=r"none\.avi: no frames in this file"):
        load_video(write_file(tmp_path / "none.avi", [], "mpeg4", "yuv420p"))


def test_files_that_are_no_video_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        load_video(tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    with pytest.raises(InputError, match=r"text\.mp4: does not decode"):
        load_video(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(InputError, match=r"sound\.wav: no video in this file"):
        load_video(tmp_path / "sound.wav")


def test_frames_of_several_sizes_and_broken_frames_are_refused(tmp_path):
    folder = write_folder(tmp_path / "clip", frames(4))
    Image.new("RGB", (10, 10)).save(folder / "frame_2.png")
    with pytest.raises(InputError, match=r"frame_2\.png has 10x10 pixels; expected 48x32"):
        load_video(folder)
    (folder / "frame_2.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"frame_2\.png"):
        load_video(folder)


def test_very_thin_videos_and_bad_rates_are_refused(tmp_path):
    thin = Clip(np.zeros((2, 2, 500, 3), np.uint8), (0, 1), 2, 24.0)
    for config in (QWEN3VL_VIDEO, QWEN25VL_VIDEO):
        with pytest.raises(InputError, match="200 times"):
            video_patches(thin, config)
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="frames a second; expected a positive number"):
            open_video(tmp_path, fps)
    with pytest.raises(InputError, match=r"fps 0\.0"):
        FrameRate(fps=0.0)
    with pytest.raises(InputError, match="min_frames 8, max_frames 4"):
        FrameRate(min_frames=8, max_frames=4)


def test_the_picture_processors_file_counts_where_there_is_none_for_video(tmp_path):
    assert VideoProcessorConfig.from_folder(tmp_path, QWEN25VL_VIDEO) == QWEN25VL_VIDEO
    (tmp_path / "preprocessor_config.json").write_text('{"min_pixels": 3136, "max_pixels": 12845056}')
    assert VideoProcessorConfig.from_folder(tmp_path, QWEN25VL_VIDEO).vision.max_pixels == 12845056
    (tmp_path / "video_preprocessor_config.json").write_text('{"fps": 1, "max_frames": 16}')
    read = VideoProcessorConfig.from_folder(tmp_path, QWEN25VL_VIDEO)
    assert read.vision == QWEN25VL_VIDEO.vision
    assert read.rate == FrameRate(fps=1.0, max_frames=16)
    for content, message in (
        ('{"num_frames": 8}', "num_frames 8"),
        ('{"min_frames": 0}', "min_frames 0"),
        ('{"fps": "2"}', "fps '2': expected a number"),
    ):
        (tmp_path / "video_preprocessor_config.json").write_text(content)
        with pytest.raises(InputError, match=rf"video_preprocessor_config\.json: .*{message}"):
            VideoProcessorConfig.from_folder(tmp_path, QWEN25VL_VIDEO)
