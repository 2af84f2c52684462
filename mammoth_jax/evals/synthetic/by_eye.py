"""How far a blind reading by eye agrees with the scorer: a numbered sheet to fill in, and the comparison.

    python -m mammoth_jax.evals.synthetic.by_eye sheet OUT SHEET --count 100
    python -m mammoth_jax.evals.synthetic.by_eye compare OUT SHEET

OUT is a folder that ``eval synthetic`` has scored.  SHEET gets ``sheet.png``, pictures with numbers, and ``sheet.csv``,
what each was asked to show and an empty column ``right`` for yes or no; neither says what the scorer thinks.  Pictures
are drawn at random from all kinds of drawings alike.  ``compare`` reads the filled column and prints one object.
"""

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import prepare_output_folder, write_text_whole, write_whole
from mammoth_jax.evals.synthetic.judging import SCORE

_COLUMNS = 10
_ENLARGED = 2
_CAPTION = 14  # pixels above a picture, for its number
_FIELDS = ("number", "file", "prompt", "shows", "right")
_YES, _NO = ("yes", "y", "1"), ("no", "n", "0")


def chosen(out: Path, count: int, seed: int) -> list[str]:
    """Files of drawings, in an order that says nothing: of each kind as many, or one more.

    Raises:
      InputError: the folder has not been scored, or has fewer drawings; ``count`` is not positive.
    """
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more")
    files: dict[str, list[str]] = {}
    for mark in _marks(out).values():
        files.setdefault(mark["kind"], []).append(mark["file"])
    random = np.random.default_rng(seed)
    shuffled = [[kind[n] for n in random.permutation(len(kind))] for kind in files.values()]
    turns = [
        kind[turn]
        for turn in range(max(map(len, shuffled), default=0))
        for kind in shuffled
        if turn < len(kind)
    ]
    if len(turns) < count:
        raise InputError(f"{out} has {len(turns)} drawings, {count} are asked for; give a smaller --count")
    return [turns[n] for n in random.permutation(count)]


def write_sheet(out: Path, sheet: Path, count: int, seed: int = 0) -> None:
    """Writes the pictures and the list to be filled in.

    Raises:
      InputError: see :func:`chosen`; or there is a sheet already, which may have been filled in.
    """
    if (sheet / "sheet.csv").exists():
        raise InputError(f"{sheet} holds a sheet already; choose a new folder")
    files = chosen(out, count, seed)
    asked = _asked(out)
    prepare_output_folder(sheet)
    pictures = _laid_out([Image.open(out / file).convert("RGB") for file in files])
    write_whole(sheet / "sheet.png", lambda path: pictures.save(path, format="PNG", optimize=True))
    rows = io.StringIO()
    lines = csv.writer(rows, lineterminator="\n")
    lines.writerow(_FIELDS)
    for number, file in enumerate(files, 1):
        line = asked[file.rsplit("_", 1)[0]]
        lines.writerow((number, file, line["prompt"], in_words(line["spec"]), ""))
    write_text_whole(sheet / "sheet.csv", rows.getvalue())


def in_words(spec: Mapping[str, Any]) -> str:
    """What a picture must show to be right, by the scorer's rules, of a specification as the list of prompts has it."""
    exact = spec["tag"] in ("counting", "text", "world")
    parts = []
    for part in spec["include"]:
        words = f"{'exactly' if exact else 'at least'} {part['count']} "
        words += f"{part['color']} {part['class']}" if "color" in part else part["class"]
        if "position" in part:
            words += f" {part['position'][0]} the {spec['include'][part['position'][1]]['class']}"
        parts.append(words)
    for text in spec.get("text", ()):
        parts.append(f"{text['color'] + ' ' if 'color' in text else ''}letters {text['content']}")
    if "background" in spec:
        ground = spec["background"]
        parts.append(f"background {ground['type']} {' and '.join(sorted(set(ground['colors'])))}")
    return "; ".join(parts) + ("; nothing else" if spec["tag"] in ("text", "world") else "")


def compare(out: Path, sheet: Path) -> dict[str, Any]:
    """How often the reader's yes and no are the scorer's; ``by_chance`` is what their shares alone would give.

    Raises:
      InputError: there is no sheet, a line is not filled in, or the scorer has not seen its picture.
    """
    marks = _marks(out)
    read: dict[str, bool] = {}
    if not (sheet / "sheet.csv").is_file():
        raise InputError(f"{sheet} has no sheet.csv; lay one out first: by_eye sheet {out} {sheet}")
    with (sheet / "sheet.csv").open(
        encoding="utf-8-sig", newline=""
    ) as lines:  # spreadsheets put a mark before it
        table = csv.DictReader(lines)
        if not set(_FIELDS) <= set(table.fieldnames or ()):
            raise InputError(
                f"{sheet}/sheet.csv has columns {table.fieldnames}, expected {list(_FIELDS)} with commas between"
            )
        for line in table:
            said = (line["right"] or "").strip().lower()
            if said not in _YES + _NO:
                raise InputError(
                    f"{sheet}/sheet.csv, number {line['number']}: {said!r} is neither yes nor no"
                )
            if line["file"] not in marks:
                raise InputError(f"{out}/results.jsonl has no score of {line['file']}")
            read[line["file"]] = said in _YES
    scored = {file: bool(marks[file]["value"]) for file in read}
    other = [file for file in read if read[file] != scored[file]]
    eye, scorer = (sum(each.values()) / len(read) for each in (read, scored))
    return {
        "pictures": len(read),
        "agreement": 1 - len(other) / len(read),
        "by_chance": eye * scorer + (1 - eye) * (1 - scorer),
        "right_by_eye": eye,
        "right_by_scorer": scorer,
        "otherwise": [{"file": f, "by_eye": read[f], "scorer": list(marks[f]["reasons"])} for f in other],
    }


def _marks(out: Path) -> dict[str, dict[str, Any]]:
    """The scorer's marks of drawings, by file."""
    results = out / "results.jsonl"
    if not results.is_file():
        raise InputError(
            f"{out} has no results.jsonl; score it first: mammoth-jax eval synthetic --out {out}"
        )
    marks = (json.loads(line) for line in results.read_text(encoding="utf-8").split("\n") if line)
    return {m["file"]: m for m in marks if m["task"] == "drawing" and m["measure"] == SCORE}


def _asked(out: Path) -> dict[str, dict[str, Any]]:
    """What was asked for, by the stem of the files."""
    lines = (out / "drawing" / "prompts.jsonl").read_text(encoding="utf-8").split("\n")
    return {line["file"]: line for line in map(json.loads, filter(None, lines))}


def _laid_out(pictures: Sequence[Image.Image]) -> Image.Image:
    """In rows, enlarged, with a number above each."""
    width, height = (_ENLARGED * max(side) for side in zip(*(p.size for p in pictures), strict=True))
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (width + 4), rows * (height + _CAPTION + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, _COLUMNS)
        corner = (column * (width + 4) + 2, row * (height + _CAPTION + 4))
        pen.text(corner, str(place + 1), fill="black")
        enlarged = picture.resize(
            (_ENLARGED * picture.width, _ENLARGED * picture.height), Image.Resampling.NEAREST
        )
        sheet.paste(enlarged, (corner[0], corner[1] + _CAPTION))
    return sheet


def main(words: Sequence[str] | None = None) -> None:
    """Writes a sheet, or compares a filled one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("sheet", "compare"))
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("sheet", type=Path, metavar="SHEET")
    parser.add_argument("--count", type=int, default=100, help="pictures of a sheet (100)")
    parser.add_argument("--seed", type=int, default=0, help="which pictures (0)")
    args = parser.parse_args(words)
    try:
        if args.what == "sheet":
            write_sheet(args.out, args.sheet, args.count, args.seed)
        else:
            print(json.dumps(compare(args.out, args.sheet), indent=1, ensure_ascii=False))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
