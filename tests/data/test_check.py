"""A look at data before a run: what is wrong is counted by kind, what is filtered by reason."""

import json

import numpy as np
import pytest
import yaml

from mammoth_jax.cli.main import main
from mammoth_jax.data.example import Example, Turn
from mammoth_jax.data.record import Picture
from mammoth_jax.data.sample_tokens import LayoutTokens
from mammoth_jax.data.shard_writer import Description, Model, finish_shards, start_shards, write_shard
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.loading import byte_words
from mammoth_jax.processing.prompts import drawing_prompt
from mammoth_jax.processing.special_tokens import byte_ranks, vision_token_lines, write_tokenizer_files
from mammoth_jax.processing.vision import family_images
from tests.data.picture_files import picture_bytes, write_tar


@pytest.fixture
def mixed(tmp_path):
    """Ten records: six good, one each of missing, broken, without words, too small; sizes differ."""
    for name, side in {"small": 20, "large": 70}.items():
        (tmp_path / f"{name}.png").write_bytes(picture_bytes(5, (side, side)))
    (tmp_path / "broken.png").write_bytes(picture_bytes(5, (70, 70))[:-40])
    rows = [
        {"image": f"{name}.png", "caption": "four"} for name in ["large"] * 6 + ["gone", "broken", "small"]
    ]
    rows.append({"image": "large.png", "caption": " "})
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "form": {"type": "TextToImage", "target": "target"},
        "source": {
            "type": "JsonRecords",
            "name": "mixed",
            "files": [f"{tmp_path}/x.jsonl"],
            "fields": [{"name": "caption", "column": "caption"}],
            "picture_fields": [{"name": "target", "column": "image"}],
        },
        "filters": [{"type": "ShortSide", "least": 32}],
    }


def check(tmp_path, capsys, data, *options):
    """Status, standard output and error of a check of a configuration."""
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    status = main(["data", "check", str(tmp_path / "data.yaml"), *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def reports(out):
    """Reports by source."""
    return {report["name"]: report for report in map(json.loads, out.splitlines())}


def test_samples_are_counted_by_what_is_wrong_with_them(tmp_path, capsys, mixed):
    status, out, _ = check(tmp_path, capsys, {"sources": [mixed], "bad_input": {"share": 0.3}}, "--json")
    report = reports(out)["mixed"]
    assert status == 0
    assert report["bad"] == {"missing file": 1, "decode failure": 1, "empty text": 1}
    assert report["filtered"] == {"short side below 32": 1}
    assert (report["read"], report["usable"], report["records"], report["failed"]) == (10, 6, 10, "")
    assert report["sizes"] == {"64": 6}
    assert report["text_tokens"] == {"4": 6}
    assert sum(report["row_tokens"].values()) == 6
    assert "gone.png): No such file" in report["examples"]["missing file"]
    assert "broken.png" in report["examples"]["decode failure"]


def test_a_picture_that_no_model_takes_is_unreadable(tmp_path, capsys, mixed):
    (tmp_path / "large.png").write_bytes(picture_bytes(5, (64 * 250, 64)))
    mixed["form"] = {"type": "Editing", "inputs": "target", "instruction": "caption"}
    status, out, _ = check(tmp_path, capsys, {"sources": [mixed], "bad_input": {"share": 0.3}}, "--json")
    report = reports(out)["mixed"]
    assert (status, report["usable"]) == (1, 0)
    assert report["bad"]["unreadable record"] == 6


def test_more_than_the_stated_share_is_not_fit(tmp_path, capsys, mixed):
    data = {"data": {"pools": [{"sources": [mixed]}], "bad_input": {"share": 0.29}}}
    status, out, _ = check(tmp_path, capsys, data)
    assert status == 1
    assert "not fit: 3 of 10 samples are unreadable, more than the share of 0.29" in out
    assert out.splitlines()[-1] == "1 sources, 1 not fit: mixed"


def test_a_source_of_which_all_is_filtered_is_not_fit(tmp_path, capsys, mixed):
    mixed["filters"] = [{"type": "TextLength", "least": 100}]
    status, out, _ = check(tmp_path, capsys, {"sources": [mixed], "bad_input": {"share": 1}})
    assert status == 1
    assert "none of 10 samples is left" in out


def test_broken_shards_count_as_files_and_every_source_is_looked_at(tmp_path, capsys, mixed):
    for i in range(4):
        write_tar(tmp_path / f"{i}.tar", {f"{i}.png": picture_bytes(i), f"{i}.txt": b"four"})
    (tmp_path / "2.tar").write_bytes(b"\0" * 100 + b"rubbish" * 100)
    tars = {
        "form": {"type": "TextToImage"},
        "source": {
            "type": "Tars",
            "name": "tars",
            "shards": [f"{tmp_path}/*.tar"],
            "fields": [{"name": "caption", "column": "txt"}],
        },
    }
    data = {"sources": [tars, mixed, tars], "bad_input": {"share": 0.24}}
    status, out, _ = check(tmp_path, capsys, data, "--json", "--samples", "5")
    found = reports(out)
    assert status == 1
    assert list(found) == ["tars", "mixed", "tars#2"]
    assert found["tars"]["bad_files"].keys() == {"2.tar"}
    assert found["tars"]["failed"] == "1 of 4 files are unreadable, more than the share of 0.24"
    assert (found["tars"]["read"], found["mixed"]["read"]) == (3, 5)


def test_a_source_that_cannot_be_opened_is_not_fit_and_the_others_are_looked_at(tmp_path, capsys, mixed):
    gone = {"form": {"type": "PlainText"}, "source": {"type": "TextDocuments", "files": ["gone.txt"]}}
    encoded = mixed | {"encoded": {"path": f"{tmp_path}/shards"}}
    data = {"sources": [gone, encoded, mixed], "bad_input": {"share": 1}}
    status, out, _ = check(tmp_path, capsys, data, "--json")
    found = reports(out)
    assert status == 1
    assert list(found) == ["sources[0]", "sources[1]", "mixed"]
    assert "the first: gone.txt" in found["sources[0]"]["failed"]
    assert "shards" in found["sources[1]"]["failed"]
    assert found["mixed"]["usable"] == 6


def test_precomputed_shards_are_looked_at_without_their_models(tmp_path, capsys, mixed):
    plan = Description(
        source="x", length=1, shard_size=1, models=(Model(role="vae", fingerprint="f"),), contents=""
    )
    start_shards(tmp_path / "shards", plan)
    write_shard(
        tmp_path / "shards", 0, ["x.jsonl:0"], [{"mean": np.zeros((1, 1, 1), np.float32)}], left_out=0
    )
    finish_shards(tmp_path / "shards")
    data = {"sources": [mixed | {"encoded": {"path": f"{tmp_path}/shards"}}], "bad_input": {"share": 1}}
    status, out, _ = check(tmp_path, capsys, data, "--json")
    assert (status, reports(out)["mixed"]["usable"]) == (0, 6)


def test_other_samples_for_another_seed_the_same_for_the_same(tmp_path, capsys, mixed):
    data = {"sources": [mixed], "bad_input": {"share": 1}}
    seen = [check(tmp_path, capsys, data, "--json", "--samples", "4", "--seed", s)[1] for s in "00123456"]
    assert seen[0] == seen[1]
    assert len(set(seen)) > 1


def test_text_is_counted_in_the_tokens_of_a_folder(tmp_path, capsys, mixed):
    folder = tmp_path / "model"
    assert main(["init", "nano", str(folder), "--seed", "0"]) == 0
    write_tokenizer_files(folder, byte_ranks() | {b"fo": 256, b"ur": 257}, vision_token_lines(1024))
    capsys.readouterr()
    data = {"sources": [mixed], "bad_input": {"share": 1}}
    _, out, _ = check(tmp_path, capsys, data, "--json", "--model", str(folder))
    assert reports(out)["mixed"]["text_tokens"] == {"2": 6}
    data |= {"frozen": {"words": str(folder)}, "model": {"extends": "nano"}, "max_side": 32}
    _, out, _ = check(tmp_path, capsys, data, "--json")
    found = reports(out)["mixed"]
    assert found["text_tokens"] == {"2": 6}
    whole = check(tmp_path, capsys, data | {"max_side": None}, "--json")[1]
    assert reports(whole)["mixed"]["mean_row"] - found["mean_row"] == 8 * 9 - 4 * 5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sources": []}, "no sources of tasks in it"),
        (
            {"sources": [{"form": {"type": "Poem"}, "source": {}}]},
            r"sources[0].form.type: 'Poem' is not one of",
        ),
    ],
)
def test_what_is_no_list_of_sources_is_one_line(tmp_path, capsys, data, said):
    status, out, err = check(tmp_path, capsys, data)
    assert status == 2
    assert said in err and len(err.splitlines()) == 1
    assert out == ""


def test_tokens_of_a_drawing_are_those_of_its_prompt_and_picture():
    config = MammothConfig.from_preset("nano")
    tokenizer, _ = byte_words(config)
    tower = config.backbone.vision
    vision = family_images(
        config.backbone.family,
        patch_size=tower.patch_size,
        merge_size=tower.spatial_merge_size,
        temporal_patch_size=tower.temporal_patch_size,
    )
    count = LayoutTokens(tokenizer, config.picture_rules, vision)
    target = Picture("p", bytes, (48, 64))
    drawing = Example("t2i", turns=(Turn("user", ("a dog",)),), target=target)
    prompt = len(drawing_prompt(tokenizer, ["a dog"], 6, 8).ids)
    assert (count(drawing).text, count(drawing).row) == (5, prompt + 6 * 9 + 1)
    talk = Example("it2t", turns=(Turn("user", (target, "What?")), Turn("assistant", ("A dog",))))
    seen = (48 // 16) * (64 // 16) + 2
    assert (count(talk).text, count(talk).row) == (10, 10 + 10 + seen)
    assert count(Example("text", document="abc")).row == 4
