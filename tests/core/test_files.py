"""Files appear whole or not at all; pictures carry their settings."""

import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import prepare_output_folder, write_whole
from mammoth_jax.core.png import FIELD, read_settings, write_png


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, lambda file: file.write_text("old"))

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a.txt", "old")]


def test_an_output_folder_is_created_and_left_empty(tmp_path):
    prepare_output_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_place_of_the_output_folder_is_bad_input(tmp_path):
    (tmp_path / "a").write_text("")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(InputError, match="cannot write to output folder"):
            prepare_output_folder(folder)


def test_settings_survive_in_the_text_field(tmp_path):
    settings = {"prompt": "一只猫 🐱", "seed": 3, "cfg_range": [0, 1]}
    write_png(Image.new("RGB", (2, 2), (1, 2, 3)), tmp_path / "a.png", settings)
    assert read_settings(tmp_path / "a.png") == settings
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (1, 2, 3) and FIELD in image.text


def test_a_picture_without_settings_is_bad_input(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="has no text field"):
        read_settings(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="cannot read picture"):
        read_settings(tmp_path / "b.png")
