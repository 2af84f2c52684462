"""Data sets as they lie on disk become examples by configuration alone: one hand-made fixture a layout."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Filtered, Place
from mammoth_jax.data.record import MissingPicture, UnreadableRecord
from mammoth_jax.data.task_source import TaskSource
from tests.data.picture_files import picture_bytes, write_tar

PLACE = Place("0")


def open_source(data):
    """A task source from what a YAML file would say."""
    return decode(TaskSource, data).open()


def shade(picture):
    """The grey of a picture."""
    return int(picture.decode()[0, 0, 0])


def seen(example):
    """What an example is, pictures by their shade."""
    said = [[p if isinstance(p, str) else shade(p) for p in turn.content] for turn in example.turns]
    target = None if example.target is None else shade(example.target)
    return said[0] if target is not None else said, target


def every(source, place=PLACE):
    """All examples of a source, as :func:`seen`."""
    return [seen(source.example(i, place)) for i in range(len(source))]


def captions(source, index=0, places=60):
    """All captions that are drawn of a record."""
    return {source.example(index, Place(str(n))).turns[0].text for n in range(places)}


def write_pictures(folder, **shades):
    """Picture files ``NAME.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in shades.items():
        (folder / f"{name}.png").write_bytes(picture_bytes(value))


def write_table(path, **columns):
    """A parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def write_lines(path, rows):
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# ---- text to image ----


def test_tars_of_pictures_and_captions(tmp_path):
    write_tar(
        tmp_path / "00000.tar", {"a.jpg": picture_bytes(1), "a.txt": b" one ", "b.jpg": picture_bytes(2)}
    )
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {
                "type": "Tars",
                "shards": [f"{tmp_path}/*.tar"],
                "fields": [{"name": "caption", "column": "txt"}],
            },
        }
    )
    assert source.task == "t2i"
    assert seen(source.example(0, PLACE)) == (["one"], 1)
    with pytest.raises(UnreadableRecord, match=r"00000\.tar:b: no caption in caption"):
        source.example(1, PLACE)


def test_captions_under_any_of_several_extensions(tmp_path):
    members = {"a.png": picture_bytes(1), "a.text": b"A", "b.webp": picture_bytes(2, form="WEBP")}
    write_tar(tmp_path / "0.tar", members | {"b.caption": b"B", "b.text": b"first"})
    extensions = [{"name": "caption", "column": c} for c in ("text", "txt", "caption")]
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {"type": "Tars", "shards": [f"{tmp_path}/0.tar"], "fields": extensions},
        }
    )
    assert every(source) == [(["A"], 1), (["first"], 2)]


def test_downloaded_shards_with_scores_in_json(tmp_path):
    members = {}
    for key, (aesthetic, watermark) in {"00": (5.0, 0.1), "01": (6.5, 0.1), "02": (6.5, 0.9)}.items():
        meta = {"aesthetic": aesthetic, "pwatermark": watermark, "similarity": 0.3, "width": 16}
        members |= {
            f"{key}.jpg": picture_bytes(int(key)),
            f"{key}.txt": key.encode(),
            f"{key}.json": json.dumps(meta).encode(),
        }
    write_tar(tmp_path / "00000.tar", members)
    write_table(tmp_path / "00000.parquet", key=["00", "01", "02"])
    (tmp_path / "00000_stats.json").write_text("{}")
    scores = [{"name": n, "column": "json", "key": n} for n in ("aesthetic", "pwatermark", "similarity")]
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {
                "type": "Tars",
                "shards": [f"{tmp_path}/*.tar"],
                "fields": [{"name": "caption", "column": "txt"}, *scores],
            },
            "filters": [
                {"type": "Score", "field": "aesthetic", "least": 6},
                {"type": "Score", "field": "pwatermark", "most": 0.5},
                {"type": "Score", "field": "similarity", "least": 0.2},
            ],
        }
    )
    with pytest.raises(Filtered, match="aesthetic below 6"):
        source.example(0, PLACE)
    assert seen(source.example(1, PLACE)) == (["01"], 1)
    with pytest.raises(Filtered, match=r"pwatermark above 0\.5"):
        source.example(2, PLACE)


def test_several_caption_columns_of_which_one_is_drawn(tmp_path):
    kinds = ("original", "style", "text")
    columns = {f"caption_{kind}": [kind] for kind in kinds} | {"image": [picture_bytes(4)]}
    columns["caption_empty"] = [""]
    file = write_table(tmp_path / "a.parquet", **columns)
    names = [*(f"caption_{kind}" for kind in kinds), "caption_empty"]
    source = open_source(
        {
            "form": {"type": "TextToImage", "captions": names},
            "source": {
                "type": "Parquet",
                "files": [file],
                "fields": [{"name": n, "column": n} for n in names],
            },
        }
    )
    assert captions(source) == set(kinds)


def test_captions_as_a_json_string(tmp_path):
    written = json.dumps({"short": "红", "long": "very red", "other": "x"}, ensure_ascii=False)
    file = write_table(tmp_path / "a.parquet", image=[picture_bytes(3)], captions=[written])
    field = {"name": "caption", "column": "captions", "parse": "json"}
    config = {
        "form": {"type": "TextToImage", "kinds": ["short", "long"]},
        "source": {"type": "Parquet", "files": [file], "fields": [field]},
    }
    assert captions(open_source(config)) == {"红", "very red"}
    config["form"] = {"type": "TextToImage"}
    assert captions(open_source(config)) == {"红", "very red", "x"}
    draws = [open_source(config).example(0, Place(str(n))).turns[0].text for n in range(600)]
    assert all(160 < draws.count(text) < 240 for text in ("红", "very red", "x"))


def test_json_lines_of_drawings_and_edits_in_one_file(tmp_path):
    write_pictures(tmp_path / "pictures", a=1, b=2, c=3)
    rows = [
        {"task_type": "t2i", "instruction": "draw a", "output_image": "pictures/a.png"},
        {
            "task_type": "edit",
            "instruction": "make b of c",
            "input_images": ["pictures/c.png"],
            "output_image": "pictures/b.png",
        },
    ]
    records = {
        "type": "JsonRecords",
        "files": [write_lines(tmp_path / "x.jsonl", rows)],
        "fields": [{"name": n, "column": n} for n in ("instruction", "task_type")],
        "picture_fields": [
            {"name": "inputs", "column": "input_images"},
            {"name": "target", "column": "output_image"},
        ],
    }
    drawing = open_source(
        {
            "form": {"type": "TextToImage", "captions": ["instruction"], "target": "target"},
            "source": records,
            "filters": [{"type": "Allowed", "field": "task_type", "values": ["t2i"]}],
        }
    )
    editing = open_source(
        {
            "form": {"type": "Editing"},
            "source": records,
            "filters": [{"type": "Allowed", "field": "task_type", "values": ["edit"]}],
        }
    )
    assert seen(drawing.example(0, PLACE)) == (["draw a"], 1)
    assert seen(editing.example(1, PLACE)) == ([3, "make b of c"], 2)
    for source, other in ((drawing, 1), (editing, 0)):
        with pytest.raises(Filtered, match="other task_type"):
            source.example(other, PLACE)


@pytest.mark.parametrize(
    "layout", ["a text a key", "a text a shard and key", "one object", "one list", "csv"]
)
def test_captions_outside_the_tar(tmp_path, layout):
    for shard in ("00000", "00001"):
        write_tar(
            tmp_path / f"{shard}.tar", {f"{k}{shard[-1]}.jpg": picture_bytes(i) for i, k in enumerate("ab")}
        )
    texts = {f"{k}{s}": f'Caption, "{k}"\nof {s} 图' for s in "01" for k in "ab"}
    (tmp_path / "texts").mkdir()
    if layout == "a text a key":
        for key, text in texts.items():
            (tmp_path / "texts" / f"{key}.txt").write_text(text)
        join = {"type": "FilePerKey", "path": f"{tmp_path}/texts/{{stem}}.txt"}
    elif layout == "a text a shard and key":
        for key, text in texts.items():
            (tmp_path / f"0000{key[-1]}").mkdir(exist_ok=True)
            (tmp_path / f"0000{key[-1]}" / f"{key}.caption").write_text(text)
        join = {"type": "FilePerKey", "path": f"{tmp_path}/{{shard}}/{{key}}.caption"}
    else:
        ending = {"one object": "c.json", "one list": "l.json", "csv": "c.csv"}[layout]
        rows = [{"key": k, "caption": c} for k, c in texts.items()]
        if layout == "csv":
            quoted = ('"' + c.replace('"', '""') + '"' for c in texts.values())
            text = "id,key,caption\n" + "".join(f"0,{k},{c}\n" for k, c in zip(texts, quoted, strict=True))
        else:
            text = json.dumps(texts if layout == "one object" else rows, ensure_ascii=layout == "one list")
        (tmp_path / ending).write_text(text, encoding="utf-8")
        column = "value" if layout == "one object" else "caption"
        join = {
            "type": "TableByKey",
            "files": [str(tmp_path / ending)],
            "fields": [{"name": "caption", "column": column}],
        }
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {"type": "Tars", "shards": [f"{tmp_path}/*.tar"]},
            "joins": [join],
        }
    )
    assert every(source) == [([texts[f"{k}{s}"]], i) for s in "01" for i, k in enumerate("ab")]


def test_a_caption_file_that_is_missing_is_named(tmp_path):
    write_tar(tmp_path / "0.tar", {"a.jpg": picture_bytes(0)})
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {"type": "Tars", "shards": [f"{tmp_path}/0.tar"]},
            "joins": [{"type": "FilePerKey", "path": f"{tmp_path}/{{key}}.txt"}],
        }
    )
    with pytest.raises(UnreadableRecord, match=r"0\.tar:a: .*a\.txt: No such file"):
        source.example(0, PLACE)


def test_a_folder_with_captions_beside_the_pictures(tmp_path):
    write_pictures(tmp_path / "p", a=1)
    (tmp_path / "p" / "a.txt").write_text("one")
    source = open_source(
        {
            "form": {"type": "TextToImage"},
            "source": {
                "type": "Folder",
                "path": str(tmp_path / "p"),
                "fields": [{"name": "caption", "column": "txt"}],
            },
        }
    )
    assert every(source) == [(["one"], 1)]


# ---- editing ----

EDIT_PICTURES = [
    {"name": "inputs", "column": "input_images"},
    {"name": "target", "column": "output_images"},
]


def test_edits_in_split_tars_with_a_table_of_paths_and_a_recap(tmp_path):
    shown = {f"./images/{n}.jpg": picture_bytes(i) for i, n in enumerate("abc")}
    data = write_tar(tmp_path / "x.tar", shown).read_bytes()
    for part, start in enumerate(range(0, len(data), 3000)):
        (tmp_path / f"x.tar.split.{part:03}").write_bytes(data[start : start + 3000])
    (tmp_path / "x.tar").unlink()
    file = write_table(
        tmp_path / "part0.parquet",
        input_images=[["images/a.jpg"], ["images/b.jpg"]],
        output_images=[["images/b.jpg"], ["images/gone.jpg"]],
        prompt=["brighter", "lost"],
    )
    recap = [{"path": "images/a.jpg", "aes": 4.8, "tags": {}}, {"path": "images/b.jpg", "aes": 4.0}]
    (tmp_path / "recap.json").write_text(json.dumps(recap))
    config = {
        "form": {"type": "Editing"},
        "source": {
            "type": "Parquet",
            "files": [file],
            "picture": "",
            "tars": [f"{tmp_path}/x.tar.split.*"],
            "index_cache": str(tmp_path / "cache"),
            "fields": [
                {"name": "instruction", "column": "prompt"},
                {"name": "path", "column": "input_images", "key": "0"},
            ],
            "picture_fields": EDIT_PICTURES,
        },
    }
    source = open_source(config)
    assert seen(source.example(0, PLACE)) == ([0, "brighter"], 1)
    with pytest.raises(
        MissingPicture, match=r"part0\.parquet:1\.target\[0\] \(images/gone\.jpg\): no such member"
    ):
        seen(source.example(1, PLACE))
    joined = {
        "type": "TableByKey",
        "files": [str(tmp_path / "recap.json")],
        "key": "path",
        "by": "path",
        "fields": [{"name": "aesthetic", "column": "aes"}],
    }
    scored = open_source(
        config | {"joins": [joined], "filters": [{"type": "Score", "field": "aesthetic", "least": 4.75}]}
    )
    assert seen(scored.example(0, PLACE)) == ([0, "brighter"], 1)
    with pytest.raises(Filtered, match=r"aesthetic below 4\.75"):
        scored.example(1, PLACE)


def test_several_turns_of_edits_of_which_one_is_drawn(tmp_path):
    write_pictures(tmp_path / "root", a=1, b=2, c=3)
    turns = [
        {"input_images": ["a.png"], "output_images": ["b.png"], "prompt": "first"},
        {"input_images": ["b.png"], "output_images": ["c.png"], "prompt": "second"},
    ]
    file = write_table(tmp_path / "m.parquet", data=[turns])
    source = open_source(
        {
            "form": {"type": "EditingTurns"},
            "source": {
                "type": "Parquet",
                "files": [file],
                "picture": "",
                "root": str(tmp_path / "root"),
                "fields": [{"name": "instruction", "column": "data", "key": "*.prompt"}],
                "picture_fields": [
                    {"name": "inputs", "column": "data", "key": "*.input_images"},
                    {"name": "target", "column": "data", "key": "*.output_images"},
                ],
            },
        }
    )
    drawn = [seen(source.example(0, Place(str(n)))) for n in range(100)]
    assert all(found in (([1, "first"], 2), ([2, "second"], 3)) for found in drawn)
    assert 30 < drawn.count(([1, "first"], 2)) < 70
    assert seen(source.example(0, Place("7"))) == drawn[7]


def test_lists_of_annotations_with_their_picture_folders(tmp_path):
    for folder, first in (("one", 10), ("two", 20)):
        write_pictures(tmp_path / folder, a=first, b=first + 1)
        rows = [
            {
                "image": ["a.png", "b.png"],
                "conversations": [
                    {"from": "human", "value": f"<image>\nedit {folder}"},
                    {"from": "gpt", "value": "<image>"},
                ],
            }
        ]
        (tmp_path / f"{folder}.json").write_text(json.dumps(rows))
    (tmp_path / "data.txt").write_text("one,one.json,true\n\n# a remark\ntwo,two.json,false\n")
    config = {
        "form": {"type": "EditingConversation"},
        "source": {
            "type": "AnnotationLists",
            "lists": [str(tmp_path / "data.txt")],
            "fields": [{"name": "conversations", "column": "conversations"}],
            "picture_fields": [{"name": "pictures", "column": "image"}],
        },
    }
    source = open_source(config)
    assert every(source) == [([10, "edit one"], 11), ([20, "edit two"], 21)]
    assert [source.record(i).fields["region_weight"] for i in range(2)] == [True, False]
    (tmp_path / "data.txt").write_text("one,gone.json,true\n")
    with pytest.raises(InputError, match=r"data\.txt:1: .*gone\.json: no such file"):
        open_source(config)
    (tmp_path / "data.txt").write_text("one,one.json,true\none;one.json\n")
    with pytest.raises(
        InputError, match=r"data\.txt:2: 'one;one\.json' is not image_root,annotations\.json,flag"
    ):
        open_source(config)


def test_edits_embedded_with_both_instructions_go_both_ways(tmp_path):
    file = write_table(
        tmp_path / "e.parquet",
        source=[{"bytes": picture_bytes(1), "path": None}],
        edited=[{"bytes": picture_bytes(2), "path": None}],
        forward=["brighten"],
        backward=["darken"],
    )
    config = {
        "form": {"type": "Editing"},
        "source": {
            "type": "Parquet",
            "files": [file],
            "picture": "",
            "fields": [
                {"name": "instruction", "column": "forward"},
                {"name": "reverse", "column": "backward"},
            ],
            "picture_fields": [
                {"name": "inputs", "column": "source"},
                {"name": "target", "column": "edited"},
            ],
        },
    }
    source = open_source(config)
    drawn = [seen(source.example(0, Place(str(n)))) for n in range(100)]
    assert all(found in (([1, "brighten"], 2), ([2, "darken"], 1)) for found in drawn)
    assert 30 < drawn.count(([1, "brighten"], 2)) < 70
    config["form"] = {"type": "Editing", "reverse": "none"}
    assert {str(seen(open_source(config).example(0, Place(str(n))))) for n in range(20)} == {
        "([1, 'brighten'], 2)"
    }


def test_json_lines_with_pictures_in_tars_beside(tmp_path):
    write_tar(tmp_path / "p.tar", {f"set/{n}.png": picture_bytes(i) for i, n in enumerate("abc")})
    rows = [{"instruction": "merge", "input_images": ["set/a.png", "set/b.png"], "output_image": "set/c.png"}]
    source = open_source(
        {
            "form": {"type": "Editing"},
            "source": {
                "type": "JsonRecords",
                "files": [write_lines(tmp_path / "x.jsonl", rows)],
                "tars": [f"{tmp_path}/p.tar"],
                "fields": [{"name": "instruction", "column": "instruction"}],
                "picture_fields": [
                    {"name": "inputs", "column": "input_images"},
                    {"name": "target", "column": "output_image"},
                ],
            },
        }
    )
    assert every(source) == [([0, 1, "merge"], 2)]


def test_chains_of_embedded_pictures_with_variants_of_instructions(tmp_path):
    file = write_table(
        tmp_path / "c.parquet",
        image_list=[[picture_bytes(i) for i in range(3)], [picture_bytes(0)]],
        instruction_list=[[["a", "A"], ["b"]], []],
    )
    config = {
        "form": {"type": "EditingChain"},
        "source": {
            "type": "Parquet",
            "files": [file],
            "picture": "",
            "fields": [{"name": "instructions", "column": "instruction_list"}],
            "picture_fields": [{"name": "states", "column": "image_list"}],
        },
    }
    single = open_source(config)
    steps = [([0, "a"], 1), ([0, "A"], 1), ([1, "b"], 2)]
    drawn = [seen(single.example(0, Place(str(n)))) for n in range(60)]
    assert all(step in drawn for step in steps)
    assert all(found in steps for found in drawn)
    config["form"] = {"type": "EditingChain", "longest": 5}
    merged = [seen(open_source(config).example(0, Place(str(n)))) for n in range(60)]
    both = [([0, "a b"], 2), ([0, "A b"], 2)]
    assert all(step in merged for step in [*steps, *both])
    assert all(found in [*steps, *both] for found in merged)
    with pytest.raises(UnreadableRecord, match="no list of instructions"):
        single.example(1, PLACE)


# ---- understanding ----

ASK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Grey."}]
TURNS = {"name": "conversations", "column": "conversations"}


def test_conversations_with_one_picture_several_or_none(tmp_path):
    write_pictures(tmp_path, a=1, b=2)
    role = [
        {"role": "user", "content": "Both: <image> and <image>"},
        {"role": "assistant", "content": "Yes."},
    ]
    rows = [
        {"id": "one", "image": "a.png", "conversations": ASK},
        {"id": "two", "image": ["a.png", "b.png"], "conversations": role},
        {"id": 3, "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    source = open_source(
        {
            "form": {"type": "PictureConversation"},
            "source": {
                "type": "JsonRecords",
                "files": [str(tmp_path / "x.json")],
                "key": "id",
                "fields": [TURNS],
                "picture_fields": [{"name": "pictures", "column": "image"}],
            },
        }
    )
    assert source.task == "it2t"
    assert [said for said, _ in every(source)] == [
        [[1, "What?"], ["Grey."]],
        [["Both: ", 1, " and ", 2], ["Yes."]],
        [["Hi"], ["Hello"]],
    ]
    assert [source.record(i).key for i in range(3)] == ["x.json:one", "x.json:two", "x.json:3"]


def test_conversations_in_tables_with_embedded_pictures(tmp_path):
    file = write_table(
        tmp_path / "t.parquet",
        id=["a", "b"],
        conversations=[ASK, ASK[1:] + ASK],
        data_source=["x", "y"],
        image=[{"bytes": picture_bytes(1), "path": "a.png"}, {"bytes": picture_bytes(2), "path": None}],
    )
    source = open_source(
        {
            "form": {"type": "PictureConversation"},
            "source": {"type": "Parquet", "files": [file], "key": "id", "fields": [TURNS]},
            "filters": [{"type": "TextLength", "least": 3}],
        }
    )
    assert [said for said, _ in every(source)] == [[[n, "What?"], ["Grey."]] for n in (1, 2)]


def test_conversations_in_tars(tmp_path):
    meta = json.dumps({"conversations": ASK}).encode()
    write_tar(tmp_path / "0.tar", {"a.jpg": picture_bytes(1), "a.json": meta})
    source = open_source(
        {
            "form": {"type": "PictureConversation"},
            "source": {
                "type": "Tars",
                "shards": [f"{tmp_path}/0.tar"],
                "fields": [{"name": "conversations", "column": "json", "key": "conversations"}],
            },
        }
    )
    assert every(source) == [([[1, "What?"], ["Grey."]], None)]


# ---- text, and any to any ----


def test_documents_and_text_conversations(tmp_path):
    (tmp_path / "a.txt").write_text("eins\n\nzwei\n\n\n\ndrei")
    (tmp_path / "b.txt").write_text("  vier\n")
    files = [f"{tmp_path}/*.txt"]
    plain = {"form": {"type": "PlainText"}, "source": {"type": "TextDocuments", "files": files}}
    whole = open_source(plain)
    assert [whole.example(i, PLACE).document for i in range(len(whole))] == [
        "eins\n\nzwei\n\n\n\ndrei",
        "  vier\n",
    ]
    plain["source"]["separator"] = "\n\n"
    cut = open_source(plain)
    assert [cut.example(i, PLACE).document for i in range(len(cut))] == ["eins", "zwei", "drei", "  vier\n"]
    rows = [
        {"body": "ein Text", "more": "no"},
        {"more": " "},
        {"conversations": [{"from": "human", "value": "?"}, ASK[1]]},
    ]
    records = {
        "type": "JsonRecords",
        "files": [write_lines(tmp_path / "t.jsonl", rows)],
        "fields": [{"name": "text", "column": "body"}, {"name": "text", "column": "more"}, TURNS],
    }
    lines = open_source({"form": {"type": "PlainText"}, "source": records})
    assert lines.example(0, PLACE).document == "ein Text"
    with pytest.raises(UnreadableRecord, match=r"t\.jsonl:1: no text"):
        lines.example(1, PLACE)
    said = open_source({"form": {"type": "TextConversation"}, "source": records})
    assert seen(said.example(2, PLACE)) == ([["?"], ["Grey."]], None)
    assert (lines.task, said.task) == ("text", "text")


def test_reasoning_before_a_picture_with_and_without_references(tmp_path):
    write_pictures(tmp_path, a=1, b=2)
    rows = [
        {"request": "a banana's colour", "reasoning": "That is yellow.", "target": "a.png"},
        {"request": "as here", "reasoning": ["So."], "references": "b.png", "target": "a.png"},
    ]
    source = open_source(
        {
            "form": {"type": "ReasoningThenPicture"},
            "source": {
                "type": "JsonRecords",
                "files": [write_lines(tmp_path / "x.jsonl", rows)],
                "fields": [{"name": n, "column": n} for n in ("request", "reasoning")],
                "picture_fields": [{"name": n, "column": n} for n in ("references", "target")],
            },
        }
    )
    assert source.task == "a2a"
    assert every(source) == [(["a banana's colour"], 1), ([2, "as here"], 1)]
    assert [source.example(i, PLACE).reasoning for i in range(2)] == ["That is yellow.", "So."]
