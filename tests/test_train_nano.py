"""The recipe of the nano model with a trainer that only records: order, what follows what, going on after a stop."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_nano.sh"
RECORD = """#!/bin/bash
printf '%s ' "$(basename "$0")" "$@" >>"$CALLS"; echo >>"$CALLS"
while (($#)); do
  case $1 in
    --out) out=$2 ;;
    to-torch) out=$3 ;;
    nano/*) name=$1 ;;
  esac
  shift
done
mkdir -p "$out"
[[ -z ${name:-} ]] || touch "$out/config.yaml"
[[ ${name:-} != "nano/${STOP:-}" ]] || exit 130
"""
STAGES = ["vae", "mammothtok", "text", "understanding", "pre_stage1", "layouts", "pre_stage2", "sft"]


@pytest.fixture
def recipe(tmp_path):
    """Runs the script on ``tmp_path/runs``; its status and the calls of this time."""
    for name in ("mammoth-jax", "python"):
        (tmp_path / name).write_text(RECORD)
        (tmp_path / name).chmod(0o755)

    def run(**environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        environment |= {"CALLS": str(calls), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        words = ["bash", str(SCRIPT), str(tmp_path / "runs")]
        done = subprocess.run(words, env={**os.environ, **environment}, timeout=60, check=False)
        return done.returncode, calls.read_text().splitlines()

    return run


def trained(calls):
    return [line.split()[2].removeprefix("nano/") for line in calls if line.startswith("mammoth-jax")]


def test_every_stage_follows_the_last_and_the_model_is_written(recipe, tmp_path):
    status, calls = recipe(OVERRIDES="--run.seed 3")
    assert status == 0 and trained(calls) == STAGES
    assert "text_tokenizer.py" in calls[0] and "to-torch" in calls[-1] and "bfloat16" in calls[-1]
    for number, stage in enumerate(STAGES[3:], start=4):
        assert f"--init {tmp_path}/runs/nano_{STAGES[number - 2]} " in calls[number], stage
    assert ["--run.seed 3" in line for line in calls] == [False] * 3 + [True] * (len(STAGES) - 2) + [False]


def test_a_stopped_stage_stops_the_recipe_which_then_goes_on(recipe):
    status, calls = recipe(STOP="understanding")
    assert status == 130 and trained(calls) == STAGES[:4]
    status, calls = recipe()
    assert status == 0 and trained(calls) == STAGES and "text_tokenizer" not in calls[0]


def test_finished_weights_are_not_trained_and_no_time_starts_nothing(recipe, tmp_path):
    (tmp_path / "runs" / "nano_mammothtok").mkdir(parents=True)
    (tmp_path / "runs" / "nano_mammothtok" / "config.json").touch()
    (tmp_path / "runs" / "nano_vae").mkdir()  # left by a start that could not write
    assert trained(recipe()[1]) == [stage for stage in STAGES if stage != "mammothtok"]
    status, calls = recipe(MINUTES="0")
    assert status == 130 and trained(calls) == []
