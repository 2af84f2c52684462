"""``mammoth-jax plan``: answers, exit statuses and refusals."""

import json
import os

import pytest

from mammoth_jax.cli.main import main

WORDS = ["plan", "nano/text", "--topology", "v5e:2x2", "--run.batch_size", "8"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))


def test_a_plan_ends_with_its_answer(capsys):
    assert main([*WORDS, "--json"]) == 0
    *text, line, verdict = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert text[0] == "nano/text on v5e:2x2, mesh data=1,fsdp=4,tensor=1"
    assert verdict == f"fits: {result['hbm'] / 2**30:.2f} of 15.75 GiB per chip"
    assert sum(result["memory"].values()) == result["hbm"] and result["settings"]["run"]["batch_size"] == 8
    assert result["seconds"]["roofline"] == max(result["seconds"][k] for k in ("compute", "memory", "links"))


def test_what_does_not_fit_has_status_1(capsys):
    assert main([*WORDS, "--run.batch_size", "4000000"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("does not fit: ")


def test_a_sweep_compares_every_mesh(capsys):
    assert main([*WORDS, "--sweep"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| data=")]
    assert len(rows) == 5 and any(
        "data=2,fsdp=1,tensor=2" in row for row in rows
    )  # nano: two key/value heads


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh", "fsdp=2"], "needs 2 devices, v5e:2x2 has 4"),
        (["--sweep", "--mesh", "fsdp=4"], "beside --sweep"),
        (["--topology", "v9:2x2"], "unknown topology 'v9:2x2'"),
        (["--rules", "wings=fsdp"], "sharding rule 'wings=fsdp'"),
        (["--sweep", "--run.batch_size", "7"], "no mesh of v5e:2x2 divides run.batch_size 7"),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    assert main([*WORDS, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_only_stages_are_planned(capsys):
    assert main(["plan", "nano/vae", "--topology", "v5e:2x2"]) == 2
    assert "task vae is not planned" in capsys.readouterr().err
