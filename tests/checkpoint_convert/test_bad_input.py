"""Broken and foreign checkpoints end in one message that names the thing; nothing half written stays."""

import json

import numpy as np
import orbax.checkpoint as ocp
import pytest

from checkpoint_convert.__main__ import main
from checkpoint_convert.safetensors_file import INDEX
from checkpoint_convert.source import FolderSource
from checkpoint_convert.to_jax import to_jax
from checkpoint_convert.to_torch import to_torch
from mammoth_jax.core.errors import InputError
from tests.checkpoint_convert.folders import tiny, weights, write_folder, write_tensors


@pytest.fixture
def src(tmp_path):
    return write_folder(tmp_path / "src", tiny("qwen3_vl"), weights(tiny("qwen3_vl"), "F32"))


def refused(tmp_path, capsys, *arguments) -> str:
    """Runs a command that must fail with status 2 and leave nothing; returns its message."""
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(list(map(str, arguments))) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    return capsys.readouterr().err


def test_unmapped_missing_doubled_and_misshapen_tensors_are_one_error(tmp_path, capsys):
    tensors = weights(tiny("qwen3_vl"), "F32")
    tensors["llm_model.model.stranger.weight"] = np.zeros(3, np.float32)
    tensors["llm_model.model.steps"] = np.zeros(3, np.int64)
    del tensors["llm_model.model.language_model.norm.weight"]
    tensors["gen_vae.decoder.conv_in.bias"] = np.zeros(99, np.float32)
    src = write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors)
    double = "gen_transformer.x_embedder.bias"
    write_tensors(src, {double: tensors[double]}, None, "again")
    (src / INDEX).unlink()
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out")
    assert "unmapped: llm_model.model.stranger.weight [3]" in message
    assert "missing: llm_model.model.language_model.norm.weight" in message
    assert f"doubled: {double}" in message
    assert "misshapen: gen_vae.decoder.conv_in.bias is [99], expected [8]" in message
    assert "dtype: llm_model.model.steps is int64" in message


def test_truncated_shard_is_named(tmp_path, src, capsys):
    shard = sorted(src.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out")
    assert shard.name in message and "truncated" in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 4, b"\xff" * 64, b"\x10" + b"\x00" * 7 + b"{not json at all" * 2]
)
def test_corrupt_header_is_named(tmp_path, src, capsys, content):
    shard = sorted(src.glob("*.safetensors"))[0]
    shard.write_bytes(content)
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out")
    assert shard.name in message and "copy" in message and len(message.splitlines()) == 1


def header_file(path, entry):
    text = json.dumps({"x": entry}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x00" * 16)
    return path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}, "truncated"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}, "corrupt"),
        ({"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}, "corrupt"),
        ({"dtype": "F31", "shape": [4], "data_offsets": [0, 16]}, "unknown dtype 'F31'"),
        ({"shape": [4]}, "corrupt"),
        (3, "corrupt"),
    ],
)
def test_impossible_header_entries_are_refused(tmp_path, entry, words):
    with pytest.raises(InputError, match=words):
        FolderSource(header_file(tmp_path / "a.safetensors", entry))


def test_index_that_names_a_missing_file_or_tensor_is_refused(src):
    index = json.loads((src / INDEX).read_text())
    (src / INDEX).write_text(
        json.dumps({"weight_map": index["weight_map"] | {"gone": "model-9.safetensors"}})
    )
    with pytest.raises(InputError, match=r"names files that are not there: model-9\.safetensors"):
        FolderSource(src)
    file = next(iter(index["weight_map"].values()))
    (src / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {"gone": file}}))
    with pytest.raises(InputError, match="tensors that are not in their files: gone"):
        FolderSource(src)
    (src / INDEX).write_text("{")
    with pytest.raises(InputError, match="is corrupt"):
        FolderSource(src)


def test_checkpoint_of_another_model_is_told(tmp_path, capsys):
    tensors = {"model.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float32)}
    src = write_folder(tmp_path / "llama", tiny("qwen3_vl"), tensors)
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out")
    assert "none of its 1 tensors belongs to this model" in message and "assemble" in message
    (src / "config.json").write_text(json.dumps({"model_type": "llama"}))
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out")
    assert "model_type 'llama' is not supported" in message and len(message.splitlines()) == 1


def test_unwritable_or_existing_output_is_refused(tmp_path, src, capsys):
    (tmp_path / "file").write_text("")
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "file" / "out")
    assert "cannot write" in message and len(message.splitlines()) == 1
    message = refused(tmp_path, capsys, "to-jax", src, tmp_path / "file")
    assert "exists already" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: command; see python -m checkpoint_convert --help"),
        (["to-torch", "src", "out", "--part", "dit"], "invalid choice: 'dit'"),
        (["to-torch", "src", "out", "--pa", "vae"], "unrecognized arguments: --pa vae"),
        (["to-torch", "src", "out", "--part", "lora"], "only runs have adapters; give RUN or RUN@STEP"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, src, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    message = refused(tmp_path, capsys, *words)
    assert said in message and len(message.splitlines()) == 1


def test_missing_source_and_missing_config_are_refused(tmp_path, src, capsys):
    assert "no checkpoint folder" in refused(
        tmp_path, capsys, "to-jax", tmp_path / "nowhere", tmp_path / "out"
    )
    (src / "config.json").unlink()
    assert "config.json" in refused(tmp_path, capsys, "to-torch", src, tmp_path / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_conversion_that_stops_half_way_leaves_nothing(tmp_path, src, monkeypatch, capsys, error):
    to_jax(src, tmp_path / "jax")
    before = sorted(p.name for p in tmp_path.iterdir())
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > 3:
            raise error

    monkeypatch.setattr("checkpoint_convert.safetensors_file.FileWriter.write", stop)
    status = main(["to-torch", str(tmp_path / "jax"), str(tmp_path / "back")])
    assert status == (130 if error is KeyboardInterrupt else 2)
    calls.clear()
    monkeypatch.setattr("checkpoint_convert.converted.ParamsWriter.add", stop)
    assert main(["to-jax", str(src), str(tmp_path / "again")]) == status
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert status == 130 or "No space left on device" in capsys.readouterr().err


def test_disk_that_is_full_under_the_arrays_is_one_line(tmp_path, src, monkeypatch, capsys):
    def full(*_):  # in TensorStore's words
        raise ValueError(
            'RESOURCE_EXHAUSTED: Error writing local file "/x/0": Failed to write 9 bytes to file 4: '
            "No space left on device [os_error_code='28']\nsource locations: 1"
        )

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", full)
    last = refused(tmp_path, capsys, "to-jax", src, tmp_path / "out").splitlines()[-1]  # after the progress
    assert f"cannot write {tmp_path / 'out'}: No space left on device; make room" in last


def test_damaged_converted_folder_is_refused(tmp_path, src):
    to_jax(src, tmp_path / "jax")
    data = [f for f in (tmp_path / "jax" / "params").rglob("*") if f.is_file()]
    for file in data:
        file.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        to_torch(tmp_path / "jax", tmp_path / "back")
    (tmp_path / "jax" / "conversion.json").write_text("{}")
    with pytest.raises(InputError, match="is corrupt"):
        to_torch(tmp_path / "jax", tmp_path / "back")


def test_part_that_a_checkpoint_lacks_cannot_be_written_alone(tmp_path):
    tensors = {n: x for n, x in weights(tiny("qwen3_vl"), "F32").items() if n.startswith("gen_vae.")}
    src = write_folder(tmp_path / "vae", tiny("qwen3_vl"), tensors)
    with pytest.raises(InputError, match="holds nothing of mammothtok; it holds: vae"):
        to_torch(src, tmp_path / "out", "mammothtok")
