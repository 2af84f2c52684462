"""JSON lists and lines are indexed piece by piece and read record by record, whole and broken."""

import json
import pickle

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data import json_index
from mammoth_jax.data.fields import Field, PictureField
from mammoth_jax.data.json_records import JsonRecords
from mammoth_jax.data.keyed_rows import KeyedRows
from mammoth_jax.data.record import UnreadableRecord

ROWS = [{"id": i, "text": 'ä图\n"]},[{' * i, "n": [i, {"x": None}]} for i in range(6)]
FIELDS = (Field(name="text", column="text"), Field(name="id", column="id"))


def write(path, form, rows=ROWS):
    """The rows as a list, indented or not, or as lines."""
    mark = "\ufeff" if "mark" in form else ""
    escaped = "escaped" in form
    if "lines" in form:
        text = "\n".join(json.dumps(r, ensure_ascii=escaped) for r in rows).replace("\n", "\r\n\n", 1)
    else:
        text = " \n" + json.dumps(rows, ensure_ascii=escaped, indent=2 if "indented" in form else None) + "\n"
    path.write_bytes((mark + text).encode())
    return str(path)


@pytest.fixture(params=[7, 1 << 23], ids=["small pieces", "one piece"])
def pieces(request, monkeypatch):
    """Files read in pieces of so many bytes."""
    monkeypatch.setattr(json_index, "PIECE", request.param)


@pytest.mark.parametrize(
    "form", ["list", "list indented escaped", "list mark", "lines", "lines mark escaped"]
)
def test_every_record_is_found_wherever_pieces_end(tmp_path, form, pieces):
    source = JsonRecords(files=(write(tmp_path / "x.json", form),), fields=FIELDS).open()
    assert len(source) == 6
    assert [dict(source[i].fields) for i in (5, 0, 3)] == [
        {"id": ROWS[i]["id"], "text": ROWS[i]["text"]} for i in (5, 0, 3)
    ]
    assert source[4].key == "x.json:4"


def test_several_files_are_one_source(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", "lines", [{"id": f"{name}{i}"} for i in range(3)])
    source = JsonRecords(files=(f"{tmp_path}/*.jsonl",), key="id", name="both").open()
    assert [source[i].key for i in range(6)] == [f"{n}.jsonl:{n}{i}" for n in "ab" for i in range(3)]
    assert (source.name, source.files, source[0].source) == ("both", 2, "both")
    assert pickle.loads(pickle.dumps(source))[5].key == "b.jsonl:b2"


def test_a_list_cut_short_keeps_its_whole_records(tmp_path, pieces):
    file = tmp_path / "x.json"
    write(file, "list")
    file.write_bytes(file.read_bytes()[:-30])
    source = JsonRecords(files=(str(file),), fields=FIELDS).open()
    assert len(source) == 5
    assert source[4].fields["text"] == ROWS[4]["text"]
    assert source.problems["x.json"].startswith("not JSON after 5 records: ")


def test_a_broken_line_is_one_unreadable_record(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": 1}\n{"id": 2\n[3]\n{"id": 4} {"id": 5}\n{"id": 6}\n{"other": 7}\n')
    source = JsonRecords(files=(str(file),), key="id").open()
    assert [source[i].key for i in (0, 4)] == ["x.jsonl:1", "x.jsonl:6"]
    for index, said in {
        1: "not JSON",
        2: r"an object expected, found '\[3\]'",
        3: "not JSON: more than one value",
        5: "no 'id', which is to be its key",
    }.items():
        with pytest.raises(UnreadableRecord, match=rf"x\.jsonl:{index}: {said}"):
            source[index]


def test_the_index_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    file = write(tmp_path / "x.json", "list")
    config = JsonRecords(files=(file,), fields=FIELDS, index_cache=str(tmp_path / "cache"))
    config.open()
    original, scanned = json_index.index_json, []
    monkeypatch.setattr(json_index, "index_json", lambda f: scanned.append(f) or original(f))
    again = config.open()
    assert scanned == []
    assert again[5].fields["text"] == ROWS[5]["text"]
    write(tmp_path / "x.json", "list", ROWS[:2])
    assert len(config.open()) == 2
    assert len(scanned) == 1


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(InputError, match="no records in 1 files"):
        JsonRecords(files=(f"{tmp_path}/empty.json",)).open()
    (tmp_path / "bad.json").write_text("[nothing")
    with pytest.raises(InputError, match=r"no records in 1 files; bad\.json: not JSON after 0 records"):
        JsonRecords(files=(f"{tmp_path}/bad.json",)).open()
    with pytest.raises(InputError, match="1 of the files named are missing"):
        JsonRecords(files=(f"{tmp_path}/gone.json",)).open()
    file = write(tmp_path / "x.json", "list")
    twice = (PictureField(name="text", column="image"),)
    with pytest.raises(InputError, match="two fields are called 'text'"):
        JsonRecords(files=(file,), fields=FIELDS, picture_fields=twice).open()
    with pytest.raises(InputError, match="below root 'r' or in tars"):
        JsonRecords(files=(file,), root="r", tars=("t.tar",)).open()


@pytest.mark.parametrize("form", ["object", "list", "lines", "csv"])
def test_rows_are_found_by_key_and_the_last_of_a_key_counts(tmp_path, form, pieces):
    rows = {f"k{i}": f"text {i}, 图" for i in range(50)} | {"ключ": "x"}
    listed = [{"key": "k7", "value": "old"}, *({"key": k, "value": v} for k, v in rows.items())]
    path = tmp_path / {"object": "a.json", "list": "b.json", "lines": "c.jsonl", "csv": "d.csv"}[form]
    if form == "csv":
        path.write_text(
            "\ufeffkey,value\n" + "".join(f'{r["key"]},"{r["value"]}"\n' for r in listed), "utf-8"
        )
    elif form == "lines":
        path.write_text("\n".join(json.dumps(r) for r in listed))
    else:
        path.write_text(json.dumps(rows if form == "object" else listed, ensure_ascii=False), "utf-8")
    found = KeyedRows((str(path),), "key")
    assert all(found.get(key)["value"] == text for key, text in rows.items())
    assert found.get("k50") is None


def test_values_of_an_object_may_be_numbers(tmp_path, pieces):
    numbers = {f"k{i}": 10**i for i in range(30)}
    (tmp_path / "a.json").write_text(json.dumps(numbers))
    found = KeyedRows((f"{tmp_path}/a.json",), "key")
    assert {key: found.get(key)["value"] for key in numbers} == numbers


def test_a_table_without_its_key_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,value\n1,2\n")
    with pytest.raises(InputError, match=r"a\.csv: no column 'key'; it has \['id', 'value'\]"):
        KeyedRows((f"{tmp_path}/a.csv",), "key")
    (tmp_path / "b.jsonl").write_text('{"key": 1}\n{"id": 1}\n')
    with pytest.raises(InputError, match=r"b\.jsonl: row 1 has no 'key'"):
        KeyedRows((f"{tmp_path}/b.jsonl",), "key")
    (tmp_path / "c.json").write_text('{"a": 1, "b"')
    with pytest.raises(InputError, match=r"c\.json: not a JSON object of keys and values"):
        KeyedRows((f"{tmp_path}/c.json",), "key")
