"""Published benchmarks: the output is walked as each one's own scorer walks it, by its rules of names and counts."""

import json
import os
import re

import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import Request, write_layout
from mammoth_jax.evals.published import dpg, gedit, geneval, imgedit, ueg
from tests.evals.stand_in import SIDE, StandIn, colour_of, silent


def write(layout, out):
    """Draws a layout without a model; returns what was asked for."""
    draw = StandIn()
    out.mkdir(exist_ok=True)
    write_layout(layout, out, draw, silent)
    return draw.asked


def colour(file) -> tuple[int, int, int]:
    with Image.open(file) as picture:
        assert picture.mode == "RGB"
        return picture.getpixel((0, 0))


GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "colors",
        "include": [{"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a photo of a red cup",
    },
]


@pytest.fixture
def geneval_file(tmp_path):
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in GENEVAL) + "\n")
    return file


def test_geneval(geneval_file, tmp_path):
    out = tmp_path / "out"
    write(geneval.layout(geneval_file, seed=7), out)
    (out / "run.json").write_text("{}")
    found = {}
    for folder in os.listdir(out):  # the scorer: folders of digits, their metadata, PNG files of digits
        if not (out / folder).is_dir() or not folder.isdigit():
            continue
        with open(out / folder / "metadata.jsonl") as file:
            metadata = json.load(file)
        names = os.listdir(out / folder / "samples")
        pictures = [name for name in names if re.match(r"\d+\.png", name)]
        found[folder] = (metadata, [colour(out / folder / "samples" / name) for name in sorted(pictures)])
    assert sorted(found) == ["00000", "00001"]
    for number, record in enumerate(GENEVAL):
        metadata, colours = found[f"{number:05d}"]
        assert metadata == record
        assert colours == [colour_of(Request(record["prompt"], 7 + i)) for i in range(4)]


def dpg_files(tmp_path):
    """The benchmark's folder and its table; a key ends at the first dot."""
    prompts = {
        "COCOval2014000000000395": "A dog in a hat.",
        "partiprompts0": "A cat.\nAsleep.",
        "12": "Rain.",
    }
    folder = tmp_path / "prompts"
    folder.mkdir()
    for key, prompt in prompts.items():
        (folder / f"{key}.txt").write_text(prompt + "\n")
    lines = ["item_id,text,keywords,proposition_id,dependency"]
    lines += [f'{key},"{prompt}",,{i},0' for key, prompt in prompts.items() for i in (1, 2)]
    table = tmp_path / "dpg_bench.csv"
    table.write_text("\n".join(lines) + "\n")
    return prompts, (folder, table)


@pytest.mark.parametrize("form", [0, 1])
def test_dpg(tmp_path, form):
    prompts, files = dpg_files(tmp_path)
    out = tmp_path / "out"
    write(dpg.layout(files[form]), out)
    names = sorted(os.listdir(out))
    assert names == sorted(f"{key}.png" for key in prompts)
    for name in names:  # the scorer: a key up to the first dot, four crops
        key, side = name.split(".")[0], SIDE
        crops = [(0, 0), (side, 0), (0, side), (side, side)]
        with Image.open(out / name) as whole:
            assert whole.size == (2 * side, 2 * side)
            seen = [whole.crop((x, y, x + side, y + side)).getcolors() for x, y in crops]
        prompt = prompts[key]
        assert seen == [[(side * side, colour_of(Request(prompt, i)))] for i in range(4)]


def test_dpg_refuses_what_its_scorer_cannot_cut(tmp_path):
    _, (folder, _) = dpg_files(tmp_path)
    with pytest.raises(InputError, match="reads 4 samples a prompt, or 1"):
        dpg.layout(folder, num_images=2)
    with pytest.raises(InputError, match="cuts squares"):
        dpg.layout(folder, size=(64, 32))


IMGEDIT = {
    "1082": {"id": "animal/000342021.jpg", "prompt": "Add a hat.", "edit_type": "add"},
    "7": {"id": "style/x.jpg", "prompt": "Make it a sketch.", "edit_type": "style"},
}


@pytest.fixture
def imgedit_file(tmp_path):
    for number, record in enumerate(IMGEDIT.values()):
        file = tmp_path / "singleturn" / record["id"]
        file.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    prompts = tmp_path / "basic_edit.json"
    prompts.write_text(json.dumps(IMGEDIT))
    return prompts


def test_imgedit(imgedit_file, tmp_path):
    out, root = tmp_path / "out", tmp_path / "singleturn"
    asked = write(imgedit.layout(imgedit_file, images=root, seed=3), out)
    assert sorted(os.listdir(out)) == ["1082.png", "7.png"]
    by_prompt = {request.prompt: request for request in asked}
    for key, record in json.loads(imgedit_file.read_text()).items():  # the scorer
        source = root / record["id"]
        request = by_prompt[record["prompt"]]
        assert request.seed == 3 and request.source is not None and request.source.name == str(source)
        assert request.source.open().getpixel((0, 0)) == Image.open(source).getpixel((0, 0))
        assert colour(out / f"{key}.png") == colour_of(request)


def test_imgedit_says_which_source_is_missing(imgedit_file):
    with pytest.raises(InputError, match=r"000342021\.jpg: no such file; say where .* --images"):
        imgedit.layout(imgedit_file)


def gedit_rows():
    """Records of two groups; a key is shared by the two languages."""
    return [
        {
            "key": key,
            "task_type": group,
            "instruction": f"{group} {key} {language}",
            "instruction_language": language,
        }
        for group, key in (("subject-add", "0f3"), ("ps_human", "a7"))
        for language in ("en", "cn")
    ]


def gedit_json(tmp_path):
    (tmp_path / "shown").mkdir()
    rows = gedit_rows()
    for number, row in enumerate(rows):
        row["input_image"] = f"shown/{number}.png"
        Image.new("RGB", (4, 4), (number, 9, 9)).save(tmp_path / row["input_image"])
    file = tmp_path / "gedit.json"
    file.write_text(json.dumps(rows))
    return file


def gedit_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = gedit_rows()
    for number, row in enumerate(rows):
        file = tmp_path / f"{number}.png"
        Image.new("RGB", (4, 4), (number, 9, 9)).save(file)
        row["input_image"] = {"bytes": file.read_bytes(), "path": None}
    (tmp_path / "data").mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "data" / "train-00000.parquet")
    return tmp_path / "data"


@pytest.mark.parametrize("make", [gedit_json, gedit_parquet])
def test_gedit(make, tmp_path):
    out = tmp_path / "out"
    asked = write(gedit.layout(make(tmp_path), model_name="ours"), out)
    by_prompt = {request.prompt: request for request in asked}
    for number, row in enumerate(gedit_rows()):  # the scorer
        folder = out / "ours" / "fullset" / row["task_type"] / row["instruction_language"]
        assert colour(folder / f"{row['key']}_SRCIMG.png") == (number, 9, 9)
        assert colour(folder / f"{row['key']}.png") == colour_of(by_prompt[row["instruction"]])
    assert len(list(out.rglob("*.png"))) == 2 * len(gedit_rows())


def test_gedit_in_one_language(tmp_path):
    asked = write(gedit.layout(gedit_json(tmp_path), language="cn"), tmp_path / "out")
    assert sorted(request.prompt for request in asked) == ["ps_human a7 cn", "subject-add 0f3 cn"]


def test_ueg(tmp_path):
    records = [
        {"index": 5, "task_type": "world_knowledge", "prompt": "国花", "question_list": ["Is it a peony?"]},
        {"index": 6, "task_type": "logic", "prompt": "3 + 1 cups", "question_list": []},
    ]
    file = tmp_path / "UEG_direct.json"
    file.write_text(json.dumps(records))
    out = tmp_path / "out"
    write(ueg.layout(file, seed=1), out)
    written = json.loads((out / "UEG_direct.json").read_text(encoding="utf-8"))
    assert [{k: v for k, v in one.items() if k != "generated_image"} for one in written] == records
    for one in written:  # the judge opens the path that every record names
        assert colour(one["generated_image"]) == colour_of(Request(one["prompt"], 1))


@pytest.mark.parametrize(
    ("benchmark", "name", "content", "said"),
    [
        (geneval, "a.jsonl", "{", "line 1: no JSON"),
        (geneval, "a.jsonl", '{"prompt": "x"}', "record 0: no text 'tag'"),
        (geneval, "a.jsonl", '{"tag": "colors", "prompt": "x"}', "record 0: no list 'include'"),
        (geneval, "a.jsonl", "\n", "holds no prompt"),
        (dpg, "a.csv", "item_id,words\n1,x\n", "record 0: no text 'text'"),
        (dpg, "a.csv", "item_id,text\na/b,x\n", "'a/b' cannot be the name of a file"),
        (imgedit, "a.json", "[]", "expected an object of records"),
        (imgedit, "a.json", '{"../x": {"id": "a", "prompt": "b", "edit_type": "c"}}', "cannot be the name"),
        (gedit, "a.json", "{}", "holds no prompt"),
        (ueg, "a.json", '{"prompt": "x"}', "expected a list of records"),
        (ueg, "a.json", '[{"text": "x"}]', "record 0: no text 'prompt'"),
    ],
)
def test_a_file_that_is_not_the_benchmarks_is_refused(tmp_path, benchmark, name, content, said):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(InputError, match=re.escape(said)):
        benchmark.layout(file)
    with pytest.raises(InputError, match="No such file"):
        benchmark.layout(tmp_path / f"missing.{name}")


def test_two_records_with_one_file_are_refused(tmp_path):
    rows = gedit_rows()[:1] * 2
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    file = tmp_path / "gedit.jsonl"
    file.write_text("\n".join(json.dumps(row | {"input_image": "x.png"}) for row in rows))
    with pytest.raises(InputError, match="two of its records"):
        gedit.layout(file)
