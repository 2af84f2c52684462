"""``run.json``: kept, compared, and never mixed."""

import json

import pytest

from mammoth_jax import __version__
from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.run_record import digest, finish_run, open_run

SETTINGS = {"steps": 4, "seed": 0, "grid": (8, 8), "prompt": "红"}


def record(out):
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def test_settings_versions_and_dates_are_kept(tmp_path):
    open_run(tmp_path, SETTINGS, {"batch": 2})
    found = record(tmp_path)
    assert found["settings"] == {**SETTINGS, "grid": [8, 8]} and found["finished"] is None
    (start,) = found["starts"]
    assert start["batch"] == 2 and start["versions"]["mammoth_jax"] == __version__
    assert {"date", "device"} <= start.keys() and {"jax", "flax", "numpy"} <= start["versions"].keys()
    finish_run(tmp_path, {"pictures": 3})
    assert record(tmp_path)["finished"] and record(tmp_path)["pictures"] == 3


def test_the_same_settings_go_on_whatever_the_batch(tmp_path):
    open_run(tmp_path, SETTINGS, {"batch": 2})
    open_run(tmp_path, SETTINGS, {"batch": 9})
    assert [start["batch"] for start in record(tmp_path)["starts"]] == [2, 9]


def test_other_settings_are_refused_by_name(tmp_path):
    open_run(tmp_path, SETTINGS, {})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"steps was 4, now 5; temperature was null, now 1\.0"):
        open_run(tmp_path, {**SETTINGS, "steps": 5, "temperature": 1.0}, {})
    assert (tmp_path / "run.json").read_bytes() == before


def test_pictures_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds 0\.png but no run\.json"):
        open_run(tmp_path, SETTINGS, {}, ["0.png"])


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"settings": ')
    with pytest.raises(InputError, match="is no record of a run"):
        open_run(tmp_path, SETTINGS, {})


def test_prompts_are_known_by_their_content_and_the_names_of_a_folders_files(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "b.txt").write_text("two")
    (folder / "a.txt").write_text("one")
    before = digest(folder)
    assert digest(folder) == before != digest(folder / "a.txt")
    (folder / "a.txt").write_text("three")
    changed = digest(folder)
    (folder / "a.txt").write_text("one")
    (folder / "a.txt").rename(folder / "c.txt")
    assert len({before, changed, digest(folder)}) == 3
    with pytest.raises(InputError, match="No such file"):
        digest(tmp_path / "nothing")
