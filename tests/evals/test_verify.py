"""The verify command on fabricated sets: every way in which a number can fail to hold is a miss."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.vectors import verify as verify_module
from mammoth_jax.evals.vectors.verify import known_runners, read_set


@pytest.fixture
def vector_set(tmp_path):
    """A set whose case ``double`` records twice its input, ``table`` two strings, and ``later`` an unknown case."""
    cases = [
        {"name": "double", "config": "double/config.json", "weights": "double/w.safetensors", "inputs": {"x": {}},
         "outputs": {"y": {"tolerance": 1e-5}, "n": {"tolerance": 0}}},
        {"name": "table", "config": "table/config.json", "inputs": {}, "outputs": {}},
        {"name": "later", "config": "later/config.json", "inputs": {}, "outputs": {"y": {"tolerance": 0}}},
    ]  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps({"set": "tiny", "cases": cases}))
    x = np.arange(4, dtype=np.float32)
    for name in ("double", "table"):
        (tmp_path / name).mkdir()
    save_file({"x": x}, tmp_path / "double" / "inputs.safetensors")
    save_file({"scale": np.float32([2.0])}, tmp_path / "double" / "w.safetensors")
    save_file({"y": 2 * x, "n": np.int64([4])}, tmp_path / "double" / "outputs.safetensors")
    (tmp_path / "double" / "config.json").write_text("{}")
    (tmp_path / "table" / "config.json").write_text(json.dumps({"cases": [{"size": 2, "text": "2*2"}]}))
    return tmp_path


def double(case):
    """A correct runner."""
    return {"y": case.inputs["x"] * case.weights["scale"], "n": np.array([case.inputs["x"].size])}


def table(case):
    """A correct runner of the JSON-only case."""
    return {"@cases.0.text": f"{case.config['cases'][0]['size']}*{case.config['cases'][0]['size']}"}


@pytest.fixture
def use(monkeypatch):
    """Replaces the known runners."""

    def replace(**runners):
        compared = {"table": lambda config: ["cases.0.text"]}
        monkeypatch.setattr(verify_module, "known_runners", lambda: (runners, compared))

    return replace


def run(capsys, *arguments):
    """Status, lines of stdout and stderr of a verify command."""
    status = main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_every_case_gets_a_line_and_the_last_line_counts(vector_set, use, capsys):
    use(double=double, table=table)
    status, lines, _ = run(capsys, vector_set)
    assert status == 1
    assert lines[-1] == "2 passed, 0 failed, 1 not run"
    assert [line.split()[1] for line in lines[:2]] == ["double", "table"]
    assert "not run" in lines[2] and "later" in lines[2]


def test_unknown_cases_are_allowed_on_request(vector_set, use, capsys):
    use(double=double, table=table)
    assert run(capsys, vector_set, "--allow-unknown")[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, n: {"y": y * 1.01, "n": n}, "tolerance 1.00e-05"),
        (lambda y, n: {"y": y}, "worst n: not computed"),
        (lambda y, n: {"y": y[:2], "n": n}, "shape [2], recorded [4]"),
        (lambda y, n: {"y": y * np.nan, "n": n}, "4 of 4 values are not numbers"),
        (lambda y, n: {"y": y, "n": n + 1}, "worst n"),
    ],
)
def test_a_wrong_value_is_named_and_fails(vector_set, use, capsys, change, said):
    use(double=lambda case: change(**double(case)), table=table)
    status, lines, _ = run(capsys, vector_set, "--allow-unknown")
    assert status == 1
    assert lines[0].startswith("FAILED") and said in lines[0]
    assert lines[-1] == "1 passed, 1 failed, 1 not run"


@pytest.mark.parametrize(
    "got", [{}, {"@cases.0.text": "2x2"}, {"@cases.0.text": "2*2", "@cases.1.text": "3*3"}]
)
def test_a_string_that_is_missing_different_or_unrecorded_fails(vector_set, use, capsys, got):
    use(double=double, table=lambda case: got)
    status, lines, _ = run(capsys, vector_set, "--allow-unknown")
    assert (status, lines[-1]) == (1, "1 passed, 1 failed, 1 not run")


def test_a_runner_that_raises_fails_alone_with_its_reason_on_one_line(vector_set, use, capsys):
    def broken(case):
        raise RuntimeError("no such\nlayer")

    use(double=broken, table=table)
    status, lines, _ = run(capsys, vector_set)
    assert status == 1
    assert lines[0].startswith("FAILED") and "RuntimeError: no such layer" in lines[0]
    assert lines[-1] == "1 passed, 1 failed, 1 not run"


def test_missing_and_corrupt_tensor_files_fail_the_case(vector_set, use, capsys):
    use(double=double, table=table)
    (vector_set / "double" / "w.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert run(capsys, vector_set)[1][-1] == "1 passed, 1 failed, 1 not run"
    (vector_set / "double" / "outputs.safetensors").unlink()
    assert run(capsys, vector_set)[1][-1] == "1 passed, 1 failed, 1 not run"


def test_a_scaled_weight_is_seen(vector_set, use, capsys):
    use(double=double, table=table)
    save_file({"scale": np.float32([2.02])}, vector_set / "double" / "w.safetensors")
    assert run(capsys, vector_set)[1][-1] == "1 passed, 1 failed, 1 not run"


def test_json_lines_carry_the_same(vector_set, use, capsys):
    use(double=double, table=table)
    status, lines, _ = run(capsys, vector_set, "--json")
    records = [json.loads(line) for line in lines]
    assert status == 1
    assert [r.get("status") for r in records[:-1]] == ["passed", "passed", "not_run"]
    assert records[0]["compared"] == 2 and records[0]["missed"] == []
    assert records[-1] == {"passed": 2, "failed": 0, "not_run": 1}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"cases": [{"name": "x"}]}', '{"cases": [3]}'])
def test_a_folder_without_a_readable_set_is_bad_input(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "cases.json").write_text(content)
    status, lines, error = run(capsys, tmp_path)
    assert status == 2 and not lines
    assert error.count("\n") == 1 and "cases.json" in error and "Traceback" not in error


def test_sets_are_read_before_anything_runs(vector_set, use, tmp_path, capsys):
    use(double=double, table=table)
    status, lines, _ = run(capsys, vector_set, tmp_path / "absent")
    assert status == 2 and not lines


def test_read_set_keeps_the_order_of_the_file(vector_set):
    assert [case.name for case in read_set(vector_set)] == ["double", "table", "later"]
    with pytest.raises(InputError, match=r"cases\.json"):
        read_set(vector_set / "double")


def test_no_two_topics_claim_the_same_case():
    topics = [set(known_runners([topic])[0]) for topic in verify_module.TOPICS]
    assert sum(map(len, topics)) == len(set().union(*topics))
