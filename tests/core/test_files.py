"""Files appear whole or not at all; pictures carry their settings."""

import errno

import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import disk_reason, prepare_output_file, prepare_output_folder, write_whole
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


def test_a_refused_write_names_the_file_and_not_its_temporary_name(tmp_path):
    def fail(file):
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_whole(tmp_path / "a.txt", fail)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ABORTED: 0: No space left on device [os_error_code='28']\nat 1", "No space left on device"),
        ("of two\nlines", "of two lines"),
        ("", "ValueError"),
    ],
)
def test_what_the_disk_refused_is_found_in_a_long_message(text, said):
    assert disk_reason(ValueError(text)) == said


def test_an_output_folder_is_created_and_left_empty(tmp_path):
    prepare_output_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_place_of_the_output_folder_is_bad_input(tmp_path):
    (tmp_path / "a").write_text("")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(InputError, match="cannot write to output folder"):
            prepare_output_folder(folder)


def test_the_folder_of_an_output_file_is_created_and_a_folder_in_its_place_is_bad_input(tmp_path):
    prepare_output_file(tmp_path / "new" / "a.png")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(InputError, match="new: it is a folder; give the name of a file"):
        prepare_output_file(tmp_path / "new")


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
