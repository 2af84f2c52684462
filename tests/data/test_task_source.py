"""Sources of tasks: answers replaced by id, codes and latents attached by key."""

import json
import pickle

import numpy as np
import pytest

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Example, Filtered, Place, Turn
from mammoth_jax.data.record import EmptyText, Picture, UnreadableRecord
from mammoth_jax.data.shard_writer import (
    Description,
    Model,
    finish_shards,
    picture_key,
    start_shards,
    write_shard,
)
from mammoth_jax.data.task_source import TaskSource
from tests.data.picture_files import picture_bytes

PLACE = Place("0")


def talks(path, ids, answers=1, **more):
    """A source of conversations with so many answers."""
    turns = [{"from": ("human", "gpt")[i % 2], "value": f"{i}"} for i in range(2 * answers)]
    rows = [{"id": i, "conversations": turns} for i in ids]
    path.write_text("\n".join(map(json.dumps, rows)))
    fields = [{"name": n, "column": n} for n in ("id", "conversations")]
    return {
        "form": {"type": "TextConversation"},
        "source": {"type": "JsonRecords", "files": [str(path)], "fields": fields},
        **more,
    }


def answers(source, index):
    """What the assistant says."""
    return [turn.text for turn in source.example(index, PLACE).turns if turn.role == "assistant"]


def test_answers_are_replaced_by_id(tmp_path):
    rows = [
        {"id": "a", "answer": "new"},
        {"id": "b", "answer": ["x", "y"]},
        {"id": "c", "answer": ["x"]},
        {"id": "d", "answer": " "},
    ]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    overrides = {"files": [f"{tmp_path}/new.jsonl"]}
    config = talks(tmp_path / "t.jsonl", "abcde", answers=2, overrides=overrides)
    source = decode(TaskSource, config).open()
    assert answers(source, 0) == ["1", "new"]
    assert answers(source, 1) == ["x", "y"]
    with pytest.raises(UnreadableRecord, match=r"t\.jsonl:2: 1 new answers for 2 turns"):
        source.example(2, PLACE)
    with pytest.raises(EmptyText, match=r"t\.jsonl:3: new answer ' '"):
        source.example(3, PLACE)
    assert answers(source, 4) == ["1", "3"]
    strict = decode(TaskSource, {**config, "overrides": overrides | {"others": "leave_out"}}).open()
    assert answers(strict, 0) == ["1", "new"]
    with pytest.raises(Filtered, match="no new answer"):
        strict.example(4, PLACE)


def test_answers_may_be_named_otherwise_and_looked_up_by_the_records_key(tmp_path):
    (tmp_path / "new.jsonl").write_text('{"sample": "1", "text": "new"}\n')
    overrides = {"files": [f"{tmp_path}/new.jsonl"], "id": "sample", "answer": "text", "by": ""}
    source = decode(TaskSource, talks(tmp_path / "t.jsonl", "ab", overrides=overrides)).open()
    assert [answers(source, i) for i in range(2)] == [["1"], ["new"]]


def write_codes(folder, keys, rows):
    """Finished shards of a model with the fingerprint f, in which one record is left out."""
    plan = Description(
        source="x",
        length=len(keys) + 1,
        shard_size=8,
        models=(Model(role="vae", fingerprint="f"),),
        contents="",
    )
    start_shards(folder, plan)
    write_shard(folder, 0, keys, rows, left_out=1)
    finish_shards(folder)


def test_codes_and_latents_are_attached_by_key(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(picture_bytes(i))
        (tmp_path / f"{i}.txt").write_text(f"caption {i}")
    rows = [
        {"codes": np.full((2, 3), i, np.uint16), "mean": np.full((2, 2, 1), i, np.float32)} for i in (2, 0)
    ]
    write_codes(tmp_path / "codes", ["2.png", "0.png"], rows)
    config = {
        "form": {"type": "TextToImage"},
        "source": {
            "type": "Folder",
            "path": str(tmp_path),
            "fields": [{"name": "caption", "column": "txt"}],
        },
        "encoded": {"path": f"{tmp_path}/codes"},
    }
    source = decode(TaskSource, config).open({"vae": "f"})
    found = [source.example(i, PLACE).target.encoded for i in range(3)]
    assert found[1] is None
    assert [int(e.codes[1, 2]) for e in (found[0], found[2])] == [0, 2]
    assert [float(e.mean[0, 0, 0]) for e in (found[0], found[2])] == [0, 2]
    assert found[0].logvar is None
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "0.png", "a": "0.png", "b": "1.png", "text": "!"}))
    shown = [{"name": "target", "column": "a"}, {"name": "inputs", "column": "b"}]
    config["form"] = {"type": "Editing", "instruction": "text"}
    config["source"] = {
        "type": "JsonRecords",
        "files": [f"{tmp_path}/x.jsonl"],
        "fields": [{"name": "text", "column": "text"}],
        "picture_fields": shown,
    }
    plain = decode(TaskSource, config).open({"vae": "f"}).example(0, PLACE)
    assert plain.target.encoded is None  # its key is x.jsonl:0, which was not encoded
    keys = [picture_key("x.jsonl:0", name) for name in ("target/0", "inputs/0")]
    write_codes(tmp_path / "edits", keys, rows)
    config["encoded"] = {"path": f"{tmp_path}/edits"}
    for fields in (shown, shown[::-1]):  # in whatever order they are listed
        config["source"]["picture_fields"] = fields
        edit = decode(TaskSource, config).open({"vae": "f"}).example(0, PLACE)
        assert [int(p.encoded.codes[0, 0]) for p in (edit.target, *edit.pictures)] == [2, 0]
    with pytest.raises(InputError, match="shards were made by vae f, this run has g"):
        decode(TaskSource, config).open({"vae": "g"})


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("Drawings", "t2i"),
        ("Edits", "edit"),
        ("Questions", "it2t"),
        ("Riddles", "a2a"),
        ("Documents", "text"),
    ],
)
def test_tasks_of_the_synthetic_world_are_forms_themselves(name, task):
    data = {"source": {"type": f"Synthetic{name}", "length": 5}}
    config = decode(TaskSource, data)
    assert decode(TaskSource, encode(config)) == config
    source = config.open()
    assert (source.task, len(source)) == (task, 5)
    assert source.example(3, PLACE).task == task
    with pytest.raises(InputError, match="has a form of its own"):
        decode(TaskSource, {**data, "form": {"type": "PlainText"}})


def test_any_other_source_needs_a_form():
    with pytest.raises(InputError, match="source Folder: form says what its records are"):
        decode(TaskSource, {"source": {"type": "Folder", "path": "x"}})


def test_sources_of_tasks_travel_to_worker_processes_and_back_to_yaml(tmp_path):
    (tmp_path / "new.jsonl").write_text('{"id": "b", "answer": "new"}\n')
    config = decode(
        TaskSource, talks(tmp_path / "t.jsonl", "ab", overrides={"files": [f"{tmp_path}/new.jsonl"]})
    )
    assert decode(TaskSource, encode(config)) == config
    assert answers(pickle.loads(pickle.dumps(config.open())), 1) == ["new"]


def test_draws_depend_on_the_place_and_the_purpose_alone():
    assert Place("a").draw("caption") == Place("a").draw("caption")
    values = [Place(str(n)).draw("caption") for n in range(1000)]
    assert min(values) >= 0 and max(values) < 1
    assert abs(np.mean(values) - 0.5) < 0.04
    others = [Place(str(n)).draw("turn") for n in range(1000)]
    assert abs(np.corrcoef(values, others)[0, 1]) < 0.12
    assert {Place(str(n)).choice("x", 3) for n in range(30)} == {0, 1, 2}


PICTURE = Picture("p", bytes)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"task": "text"}, "either a document or turns"),
        ({"task": "it2t", "document": "x"}, "a document is text alone"),
        ({"task": "t2i", "turns": (Turn("user", ("x",)),)}, "a target goes with"),
        ({"task": "text", "turns": (Turn("user", ("x",)),)}, "nobody answers"),
        ({"task": "edit", "turns": (Turn("user", ("x",)),), "target": PICTURE}, "0 reference pictures"),
        ({"task": "t2i", "turns": (Turn("user", (PICTURE, "x")),), "target": PICTURE}, "1 reference"),
        ({"task": "edit", "turns": (Turn("user", ("x", PICTURE)),), "target": PICTURE}, "before the text"),
        ({"task": "a2a", "turns": (Turn("user", ("x",)),), "target": PICTURE}, "reasoning goes with a2a"),
        ({"task": "t2i", "turns": (Turn("system", ("x",)),), "target": PICTURE}, "expected one of the user"),
    ],
)
def test_parts_that_make_no_example_are_refused(parts, said):
    with pytest.raises(ValueError, match=said):
        Example(**parts)
    with pytest.raises(ValueError, match="only users show pictures"):
        Turn("assistant", (PICTURE,))
