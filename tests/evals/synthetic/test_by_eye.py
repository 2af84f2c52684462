"""A sheet for a blind reading, and how far the reader agrees with the scorer."""

import csv
import json

import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.synthetic.by_eye import chosen, compare, in_words, main, write_sheet
from mammoth_jax.evals.synthetic.judging import Mark
from mammoth_jax.evals.synthetic.pictures import prompt_list
from mammoth_jax.evals.synthetic.samples import KINDS_OF, samples


@pytest.fixture
def out(tmp_path):
    """A scored folder: two samples a kind with two pictures each, the second of which is wrong."""
    folder, lines = tmp_path / "out", []
    found = samples("drawing", 2)
    for number, sample in enumerate(found):
        for image in range(2):
            file = f"{sample.stem}_{image:02d}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (10 * number, 100 * image, 0)).save(folder / file)
            wrong = ("red circle: 0 of 1",) if image else ()
            marks = [
                Mark("drawing", sample.kind, sample.language, "score", 1.0 - image, file, wrong),
                Mark("drawing", sample.kind, sample.language, "vae", 1.0, sample.stem),
                Mark("riddle", "amount", "en", "score", 1.0, f"riddle/amount/{image}.png"),
            ]
            lines += [mark.to_json() for mark in marks]
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "drawing" / "prompts.jsonl").write_text(prompt_list(found), encoding="utf-8")
    return folder


def rows(sheet):
    with (sheet / "sheet.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def fill(sheet, answers):
    found = rows(sheet)
    with (sheet / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, found[0].keys())
        lines.writeheader()
        lines.writerows(row | {"right": answer} for row, answer in zip(found, answers(found), strict=True))


def test_a_sheet_shows_every_kind_alike_and_not_what_the_scorer_thinks(out, tmp_path):
    write_sheet(out, tmp_path / "sheet", 15)
    found = rows(tmp_path / "sheet")
    assert [row["number"] for row in found] == [str(n) for n in range(1, 16)]
    kinds = [row["file"].split("/")[1] for row in found]
    assert sorted({kinds.count(kind) for kind in KINDS_OF["drawing"]}) == [2, 3]
    assert all(row["right"] == "" and row["prompt"] and row["shows"] for row in found)
    picture = Image.open(tmp_path / "sheet" / "sheet.png")
    for place, row in enumerate(found):
        at = (place % 10 * 20 + 2 + 8, place // 10 * 34 + 14 + 8)
        assert picture.getpixel(at) == Image.open(out / row["file"]).getpixel((0, 0))
    assert chosen(out, 15, 0) == [row["file"] for row in found] != chosen(out, 15, 1)


def test_agreement_is_the_share_of_pictures_that_both_read_alike(out, tmp_path, capsys):
    sheet = tmp_path / "sheet"
    main(["sheet", str(out), str(sheet), "--count", "28"])
    fill(sheet, lambda found: [" Yes" if row["file"].endswith("00.png") else "no" for row in found])
    assert compare(out, sheet)["agreement"] == 1 and compare(out, sheet)["by_chance"] == 0.5
    fill(sheet, lambda found: ["1"] * 28)
    main(["compare", str(out), str(sheet)])
    figures = json.loads(capsys.readouterr().out)
    assert (figures["agreement"], figures["right_by_eye"], figures["right_by_scorer"]) == (0.5, 1, 0.5)
    assert len(figures["otherwise"]) == 14
    assert figures["otherwise"][0]["scorer"] == ["red circle: 0 of 1"]


def test_a_sheet_that_is_not_filled_in_is_refused_and_never_written_over(out, tmp_path):
    sheet = tmp_path / "sheet"
    write_sheet(out, sheet, 2)
    with pytest.raises(InputError, match="number 1: '' is neither yes nor no"):
        compare(out, sheet)
    with pytest.raises(InputError, match="holds a sheet already"):
        write_sheet(out, sheet, 2)
    with pytest.raises(InputError, match="has 28 drawings, 29 are asked for"):
        write_sheet(out, tmp_path / "other", 29)
    with pytest.raises(InputError, match=r"no results\.jsonl; score it first"):
        write_sheet(tmp_path, tmp_path / "other", 2)
    with pytest.raises(InputError, match="--count 0: expected 1 or more"):
        write_sheet(out, tmp_path / "other", 0)


def test_a_sheet_from_a_spreadsheet_is_read_or_its_columns_are_named(out, tmp_path):
    sheet = tmp_path / "sheet"
    write_sheet(out, sheet, 2)
    fill(sheet, lambda found: ["yes"] * 2)
    file = sheet / "sheet.csv"
    file.write_text("\ufeff" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert compare(out, sheet)["pictures"] == 2
    file.write_text(file.read_text(encoding="utf-8-sig").replace(",", ";"), encoding="utf-8")
    with pytest.raises(InputError, match=r"sheet\.csv has columns \['number;file"):
        compare(out, sheet)


def test_what_a_picture_must_show_is_told_by_the_scorers_rules():
    spec = {
        "tag": "position",
        "include": [
            {"class": "circle", "count": 1, "color": "red"},
            {"class": "star", "count": 1, "position": ["left of", 0]},
        ],
    }
    assert in_words(spec) == "at least 1 red circle; at least 1 star left of the circle"
    spec = {
        "tag": "text",
        "include": [{"class": "ring", "count": 2}],
        "text": [{"content": "CAT", "color": "black"}],
        "background": {"type": "stripes", "colors": ["sky", "mint"]},
    }
    words = "exactly 2 ring; black letters CAT; background stripes mint and sky; nothing else"
    assert in_words(spec) == words
