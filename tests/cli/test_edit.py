"""``edit``: what reaches the pipeline, what is written, and what is refused before any work."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from mammoth_jax.cli import edit
from mammoth_jax.cli.main import main
from mammoth_jax.core.png import read_settings
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.geometry import PictureSize
from mammoth_jax.pipelines.options import Picture
from mammoth_jax.pipelines.references import Reference
from mammoth_jax.processing.generation_config import GenerationSettings

SIZE = PictureSize(pixels=(64, 96), tokens=(8, 12), patches=(8, 12))
CHECKPOINT = GenerationSettings(
    end_of_line=1, visual_start=2, visual_end=9, top_k=7, top_p=0.9, do_sample=True
)


class FakePipeline:
    """Records its calls and draws black pictures."""

    def __init__(self):
        self.calls = []
        self.loaded = SimpleNamespace(settings=CHECKPOINT)

    def __call__(self, image, prompt, *, num_images_per_prompt, seed, output_type, progress, **settings):
        self.calls.append((image, prompt, settings))
        shown = (Reference(None, None, None),)
        requests = [
            PictureRequest(p, seed + i, SIZE, shown) for p in prompt for i in range(num_images_per_prompt)
        ]
        images = [Image.new("RGB", (4, 4)) for _ in requests]
        return SimpleNamespace(images=images, pictures=[Picture(r, None, None, None) for r in requests])


@pytest.fixture
def pipeline(monkeypatch):
    """The pipeline that the command will load."""
    fake = FakePipeline()
    monkeypatch.setattr(edit, "load_pipeline", lambda args: fake)
    return fake


@pytest.fixture
def files(tmp_path):
    """Two pictures."""
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, path in enumerate(paths):
        Image.new("RGB", (8 + number, 8)).save(path)
    return paths


def run(capsys, *words):
    """Status and stderr."""
    status = main(["edit", *map(str, words)])
    return status, capsys.readouterr().err


def test_all_references_go_to_every_instruction_and_into_the_record(pipeline, files, tmp_path, capsys):
    out = tmp_path / "out"
    status, _ = run(
        capsys, "--image", files[0], "--image", files[1], "add a hat", "add a cat", "--out", out,
        "--image-guidance", "3", "--no-tokens", "--size-from", "last", "--num-images", 2,
    )  # fmt: skip
    assert status == 0
    ((images, prompts, settings),) = pipeline.calls
    assert prompts == ["add a hat", "add a cat"]
    assert [[picture.size for picture in row] for row in images] == [[(8, 8), (9, 8)]] * 2
    assert settings == {
        "batch_size": 8, "image_guidance_scale": 3.0, "size_from": "last",
        "use_vision": True, "use_tokens": False, "use_latents": True,
    }  # fmt: skip
    records = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert [record["file"] for record in records] == [
        "0000_00.png",
        "0000_01.png",
        "0001_00.png",
        "0001_01.png",
    ]
    assert records[0]["images"] == [str(file) for file in files]
    assert records[0]["image_guidance_scale"] == 3.0 and records[0]["use_tokens"] is False
    assert read_settings(out / "0000_00.png") == records[0]


def test_a_file_that_is_no_picture_is_refused_before_any_work(pipeline, files, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:40])
    for file, said in ((broken, "broken.png"), (tmp_path / "none.png", "no such file")):
        status, error = run(capsys, "--image", file, "add a hat", "--out", tmp_path / "out")
        assert status == 2 and said in error and error.count("\n") == 1
    assert not pipeline.calls and not (tmp_path / "out").exists()


def test_an_edit_needs_a_picture_and_an_instruction(pipeline, files, tmp_path, capsys):
    assert "--image" in run(capsys, "add a hat", "--out", tmp_path / "out")[1]
    assert "no prompt" in run(capsys, "--image", files[0], "--out", tmp_path / "out")[1]
