"""``generate``: which pictures are asked for, what is written, and what is refused before any work."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from mammoth_jax.cli import generate
from mammoth_jax.cli.main import main
from mammoth_jax.core.png import read_settings
from mammoth_jax.pipelines.batching import PictureRequest, Reasoning
from mammoth_jax.pipelines.geometry import PictureSize
from mammoth_jax.pipelines.options import Picture
from mammoth_jax.pipelines.think_then_draw import ThinkOptions
from mammoth_jax.processing.generation_config import GenerationSettings

SIZE = PictureSize(pixels=(64, 96), tokens=(8, 12), patches=(8, 12))
CHECKPOINT = GenerationSettings(
    end_of_line=1, visual_start=2, visual_end=9, top_k=7, top_p=0.9, do_sample=True
)


class FakePipeline:
    """Records its calls and draws flat pictures whose colour is their seed."""

    def __init__(self):
        self.calls = []
        self.loaded = SimpleNamespace(settings=CHECKPOINT)

    def __call__(self, prompt, *, num_images_per_prompt, seed, output_type, progress, **settings):
        self.calls.append((prompt, settings))
        reasoning = Reasoning((7,), "红 first", "budget") if "think" in settings else None
        requests = [
            PictureRequest(p, seed + i, SIZE, reasoning=reasoning)
            for p in prompt
            for i in range(num_images_per_prompt)
        ]
        progress("drawing", len(requests), len(requests))
        images = [Image.new("RGB", (4, 4), (request.seed, 0, 0)) for request in requests]
        return SimpleNamespace(images=images, pictures=[Picture(r, None, None, None) for r in requests])


@pytest.fixture
def pipeline(monkeypatch):
    """The pipeline that the command will load."""
    fake = FakePipeline()
    monkeypatch.setattr(generate, "load_pipeline", lambda args: fake)
    return fake


def run(capsys, *words):
    """Status, lines of stdout, and stderr."""
    status = main(["generate", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_pictures_are_named_by_prompt_and_image_and_carry_their_settings(pipeline, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    words = ("--preset", "nano", "--num-images", 2, "--seed", 5, "--steps", 3)
    status, lines, _ = run(capsys, "a cat", "一只猫", "--out", out, *words)
    names = ["0000_00.png", "0000_01.png", "0001_00.png", "0001_01.png"]
    assert status == 0
    assert lines == [str(out / name) for name in names]
    assert sorted(file.name for file in out.iterdir()) == [*names, "images.jsonl"]
    records = [json.loads(line) for line in (out / "images.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["file"], r["prompt"], r["seed"]) for r in records] == [
        ("0000_00.png", "a cat", 5),
        ("0000_01.png", "a cat", 6),
        ("0001_00.png", "一只猫", 5),
        ("0001_01.png", "一只猫", 6),
    ]
    for record in records:
        assert read_settings(out / record["file"]) == record
        assert Image.open(out / record["file"]).getpixel((0, 0)) == (record["seed"], 0, 0)
    got = {
        name: records[0][name]
        for name in ("num_inference_steps", "width", "height", "grid", "top_k", "preset")
    }
    assert got == {
        "num_inference_steps": 3, "width": 96, "height": 64, "grid": [12, 8], "top_k": 7, "preset": "nano",
    }  # fmt: skip
    assert records[0]["temperature"] == 1.0 and None not in records[0].values()


def test_reasoning_is_saved_beside_its_picture_and_in_its_settings(pipeline, tmp_path, capsys):
    status, _, _ = run(capsys, "a cat", "--out", tmp_path, "--think-tokens", 9)
    assert status == 0 and pipeline.calls[0][1]["think"] == ThinkOptions(max_new_tokens=9)
    assert (tmp_path / "0000_00.txt").read_text(encoding="utf-8") == "红 first"
    settings = read_settings(tmp_path / "0000_00.png")
    assert (settings["reasoning"], settings["reasoning_ended_by"]) == ("红 first", "budget")
    run(capsys, "a cat", "--out", tmp_path / "plain")
    assert "think" not in pipeline.calls[1][1]
    assert not (tmp_path / "plain" / "0000_00.txt").exists()


def test_prompts_of_a_file_follow_those_of_the_command_line(pipeline, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text("second\n\nthird\n", encoding="utf-8")
    assert run(capsys, "first", "--prompts", file, "--out", tmp_path / "out")[0] == 0
    assert [call[0] for call in pipeline.calls] == [["first", "second", "third"]]


def test_many_pictures_are_drawn_in_batches_and_numbered_through(pipeline, tmp_path, capsys):
    words = [*"abcde", "--num-images", 2, "--batch", 4, "--out", tmp_path]
    _, lines, _ = run(capsys, *words)
    assert [call[0] for call in pipeline.calls] == [["a", "b"], ["c", "d"], ["e"]]
    assert lines[-1] == str(tmp_path / "0004_01.png")
    assert len((tmp_path / "images.jsonl").read_text().splitlines()) == 10


def test_only_what_is_given_overrides_the_checkpoints_settings(pipeline, tmp_path, capsys):
    run(capsys, "a", "--out", tmp_path)
    run(
        capsys, "a", "--out", tmp_path, "--size", "96x64", "--grid", "12x8", "--cfg-range", "0.1,0.9",
        "--guidance", "4", "--ar-guidance", "7", "--negative-prompt", "", "--temperature", "0.5",
        "--top-k", "9", "--top-p", "0.8",
        "--solver", "heun", "--mode", "diffusion", "--steps", "2",
        "--decode-weights", "int8", "--cache", "int8",
    )  # fmt: skip
    assert pipeline.calls[0][1] == {"batch_size": 8}
    assert pipeline.calls[1][1] == {
        "batch_size": 8,
        "width": 96, "height": 64, "grid": (12, 8), "cfg_range": (0.1, 0.9), "guidance_scale": 4.0,
        "ar_guidance_scale": 7.0, "negative_prompt": "", "temperature": 0.5, "top_k": 9, "top_p": 0.8,
        "solver": "heun", "mode": "diffusion", "num_inference_steps": 2,
        "decode_weights": "int8", "cache": "int8",
    }  # fmt: skip


def test_json_lines_on_stdout_progress_on_stderr(pipeline, tmp_path, capsys):
    _, lines, error = run(capsys, "a", "--out", tmp_path, "--json")
    assert json.loads(lines[0])["file"] == "0000_00.png"
    assert "drawing: 1/1" in error


def test_random_weights_are_announced_only_when_nobody_asked_for_them(
    pipeline, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("mammoth_jax.core.shipped.FOLDER", tmp_path / "none")
    assert "random weights" in run(capsys, "a", "--out", tmp_path)[2]
    assert "random weights" not in run(capsys, "a", "--out", tmp_path, "--preset", "nano")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no prompt"),
        (["a", "--size", "64"], "'64' is not WIDTHxHEIGHT"),
        (["a", "--size", "0x64"], "'0x64' is not WIDTHxHEIGHT"),
        (["a", "--grid", "8x-8"], "'8x-8' is not WIDTHxHEIGHT"),
        (["a", "--cfg-range", "0.9,0.1"], "expected 0 <= A <= B <= 1"),
        (["a", "--cfg-range", "half"], "'half' is not A,B"),
        (["a", "--steps", "0"], "'0' is not a whole number of at least 1"),
        (["a", "--num-images", "-1"], "'-1' is not a whole number of at least 1"),
        (["a", "--solver", "rk4"], "invalid choice: 'rk4'"),
        (["a", "--decode-weights", "int4"], "invalid choice: 'int4'"),
        (["a", "--model", "x", "--preset", "nano"], "not allowed with argument"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_drawn(pipeline, tmp_path, capsys, words, said):
    status, _, error = run(capsys, *words, "--out", tmp_path / "out")
    assert status == 2 and said in error and error.count("\n") == 1
    assert not pipeline.calls and not (tmp_path / "out").exists()


def test_an_empty_prompt_file_is_refused(pipeline, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text(" \n\n")
    status, _, error = run(capsys, "--prompts", file, "--out", tmp_path / "out")
    assert status == 2 and "holds no prompt" in error and not pipeline.calls


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(pipeline, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    status, _, error = run(capsys, "a", "--out", tmp_path / "file" / "out")
    assert status == 2 and "cannot write to output folder" in error and error.count("\n") == 1
    assert not pipeline.calls


def test_an_interrupted_picture_leaves_nothing_half_written(pipeline, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", interrupt_after_writing)
    assert run(capsys, "a", "--out", tmp_path)[0] == 130
    assert list(tmp_path.iterdir()) == []


def interrupt_after_writing(self, file, **options):
    """Stands in for the user's Ctrl-C in the middle of a file."""
    file.write_bytes(b"half")
    raise KeyboardInterrupt
