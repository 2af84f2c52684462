"""Jobs: what is missing is drawn, what is there is kept, nothing is half written."""

import pytest
from PIL import Image

from mammoth_jax.core.png import read_settings
from mammoth_jax.evals.jobs import Drawn, Job, Layout, Request, SourcePicture, draw_jobs, write_layout
from tests.evals.stand_in import StandIn, colour_of, silent


def jobs(count: int = 4) -> list[Job]:
    return [Job(f"a/{i}.png", (Request("x", i),)) for i in range(count)]


def test_pictures_are_drawn_once_and_drawing_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw_jobs(jobs(), tmp_path, StandIn(interrupt_after=3), silent)
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["1.png", "2.png", "3.png"]
    later = StandIn()
    assert draw_jobs(jobs(), tmp_path, later, silent) == 1
    assert [request.seed for request in later.asked] == [0]
    assert draw_jobs(jobs(), tmp_path, later, silent) == 0 and len(later.asked) == 1


def test_a_damaged_picture_is_drawn_again(tmp_path):
    draw_jobs(jobs(), tmp_path, StandIn(), silent)
    file = tmp_path / "a" / "2.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    again = StandIn()
    draw_jobs(jobs(), tmp_path, again, silent)
    assert [request.seed for request in again.asked] == [2] and file.read_bytes() == whole


def test_a_picture_composed_of_several_is_written_when_all_are_there(tmp_path):
    requests = tuple(Request("x", seed) for seed in range(3))

    def side_by_side(images):
        whole = Image.new("RGB", (3, 1))
        for i, image in enumerate(images):
            whole.putpixel((i, 0), image.getpixel((0, 0)))
        return whole

    job = Job("whole.png", requests, side_by_side)
    with pytest.raises(KeyboardInterrupt):
        draw_jobs([job], tmp_path, StandIn(interrupt_after=2), silent)
    assert list(tmp_path.iterdir()) == []
    draw_jobs([job], tmp_path, StandIn(), silent)
    with Image.open(tmp_path / "whole.png") as picture:
        assert [picture.getpixel((i, 0)) for i in range(3)] == [colour_of(r) for r in requests]
    assert [part["seed"] for part in read_settings(tmp_path / "whole.png")["parts"]] == [0, 1, 2]


def test_texts_and_copies_are_there_before_anything_is_drawn_and_results_after_everything(tmp_path):
    source = SourcePicture("s", lambda: Image.new("RGB", (2, 2), (1, 2, 3)))
    job = Job("b/0.png", (Request("x", 0),), texts={"b/t.txt": "words"}, copies={"b/0_SRC.png": source})
    layout = Layout((job,), {"all.json": lambda out: str((out / job.file).is_file())})
    with pytest.raises(KeyboardInterrupt):
        write_layout(layout, tmp_path, StandIn(interrupt_after=0), silent)
    assert (tmp_path / "b/t.txt").read_text() == "words"
    with Image.open(tmp_path / "b/0_SRC.png") as copy:
        assert copy.getpixel((0, 0)) == (1, 2, 3)
    assert not (tmp_path / "all.json").exists()
    write_layout(layout, tmp_path, StandIn(), silent)
    assert (tmp_path / "all.json").read_text() == "True"


def test_what_was_written_before_drawing_stands_beside_the_picture(tmp_path):
    def draw(requests):
        for number, request in enumerate(requests):
            yield number, Drawn(Image.new("RGB", (1, 1)), {}, f"想 {request.seed}")

    draw_jobs(jobs(2), tmp_path, draw, silent)
    assert (tmp_path / "a/1.txt").read_text(encoding="utf-8") == "想 1"


def test_progress_counts_files_and_those_that_were_there(tmp_path):
    draw_jobs(jobs(2), tmp_path, StandIn(), silent)
    seen = []
    draw_jobs(jobs(4), tmp_path, StandIn(), lambda *report: seen.append(report))
    assert seen == [("pictures", 3, 4), ("pictures", 4, 4)]
