"""The ablations with commands that only record: what is trained once, what is compared, going on after a stop."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.core.shipped import FOLDER
from mammoth_jax.models.backbone.config import layer_plan
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.start_weights import start_weights
from tests.script_module import script_module

ablations = script_module("ablations")


class Recorder:
    """Stands in for ``subprocess.Popen``: writes the scores that ``eval`` would; the run to ``stop`` takes too long,
    and stops with 130 when it is interrupted; the one that ``fails`` ends with 2."""

    def __init__(self):
        self.calls, self.signals, self.stop, self.fails = [], [], None, None

    def __call__(self, command):
        self.calls.append(command[3:])
        self._out = Path(command[-1] if "to-torch" in command else command[command.index("--out") + 1])
        self._out.mkdir(exist_ok=True)
        if "eval" in command:
            score = 0.5 + 0.1 * int(self._out.name[-1])
            task = command[command.index("--tasks") + 1]
            ends = {"": score, ".shuffled": 0.1, ".unchanged": 0.4}
            scores = {f"{task}.overall{end}": value for end, value in ends.items()}
            (self._out / "scores.json").write_text(json.dumps(scores))
        return self

    def wait(self, timeout=None):
        if self._out.name == self.fails:
            return 2
        if self._out.name != self.stop:
            return 0
        if timeout is not None:
            raise subprocess.TimeoutExpired("train", timeout)
        return 130

    def send_signal(self, number):
        self.signals.append(number)


@pytest.fixture
def commands(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(ablations.subprocess, "Popen", recorder)
    return recorder


PARTS = ("words", "mammothtok", "vae", "understanding", "layouts")


def run(monkeypatch, tmp_path, *words):
    for part in PARTS:
        (tmp_path / f"nano_{part}").mkdir(exist_ok=True)
    folders = ["--runs", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["ablations.py", *folders, *words])
    return ablations.main()


def trained(commands):
    return [Path(call[call.index("--out") + 1]).name for call in commands.calls if call[0] == "train"]


def test_every_arm_is_a_configuration_that_trains_and_differs_from_the_others():
    seen = []
    for training in dict.fromkeys(arm.training for row in ablations.ROWS for arm in row.arms):
        config = load_training(Path(training.config), None, training.overrides(Path("runs"), 0))
        assert isinstance(config, JointTraining) and isinstance(config.model, MammothConfig)
        seen.append((training.start, config))
    assert not any(a == b for n, a in enumerate(seen) for b in seen[:n])


def test_arms_start_from_a_stage_in_the_released_format_wherever_their_experts_are(tmp_path):
    words = {
        n: x for n, x in load_file(FOLDER / "model-00001-of-00001.safetensors").items() if "gen_" not in n
    }
    save_file(words, tmp_path / "model.safetensors")
    mesh, read = single_device_mesh(), []
    for arm in next(row for row in ablations.ROWS if row.name == "experts").arms:
        config = load_training(Path(arm.training.config), None, arm.training.overrides(Path("runs"), 0))
        parts = config.parts(config.data)
        template = abstract(lambda config=config, parts=parts: Mammoth(config.model, parts=parts))
        parameters = named_parameters(start_weights(config.model, template, mesh, 0, tmp_path))
        stacks = [
            x[...] for n, x in parameters.items() if n.startswith("decoder.") and n.endswith(".0.gate.kernel")
        ]
        read.append(np.concatenate(stacks))
        assert len(stacks) == len(layer_plan(config.model.backbone.decoder))
    assert all((each == read[0]).all() for each in read)


def test_a_run_that_two_rows_compare_is_trained_once_from_a_stage_converted_once(
    commands, monkeypatch, tmp_path
):
    assert run(monkeypatch, tmp_path, "--rows", "noise", "modes", "--seeds", "0") == 0
    assert trained(commands) == ["second_stage_0", "noise_region_0", "noise_none_0", "modes_text_0"]
    assert sum(call[0] == "eval" for call in commands.calls) == 6
    start = str(tmp_path / "out" / "start_layouts")
    assert [call for call in commands.calls if call[0] == "to-torch"] == [
        ["to-torch", str(tmp_path / "nano_layouts"), start]
    ]
    assert all(call[call.index("--init") + 1] == start for call in commands.calls if call[0] == "train")


def test_finished_weights_are_started_from_as_they_are(commands, monkeypatch, tmp_path):
    (tmp_path / "nano_understanding").mkdir()
    (tmp_path / "nano_understanding" / "config.json").touch()
    run(monkeypatch, tmp_path, "--rows", "experts", "--seeds", "0")
    starts = {call[call.index("--init") + 1] for call in commands.calls if call[0] == "train"}
    assert starts == {str(tmp_path / "nano_understanding")} and commands.calls[0][0] == "train"


def test_the_table_keeps_what_earlier_calls_found_and_what_a_failure_left(commands, monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "--rows", "noise", "--seeds", "0")
    commands.fails = "references_tokens_0"
    with pytest.raises(SystemExit, match="references_tokens_0 ended with status 2"):
        run(monkeypatch, tmp_path, "--rows", "references", "--seeds", "0")
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith(("| section 3.1", "| 9"))] == [
        "similarity",
        "region",
        "none",
        "vision",
    ]


def test_what_is_lacking_is_said_before_anything_is_trained(commands, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--seeds", "0")
    assert f"not there: {tmp_path}/semantic/with_0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--rows", "noise", "--count", "1")
    assert "--count 1: expected 2 or more" in capsys.readouterr().err and not commands.calls


def test_a_stop_is_gone_on_from_and_the_table_has_mean_spread_and_chance(
    commands, monkeypatch, tmp_path, capsys
):
    commands.stop = "references_tokens_1"
    words = ("--rows", "references", "--seeds", "0", "1")
    assert run(monkeypatch, tmp_path, *words) == 130
    assert "stopped" in capsys.readouterr().out and commands.signals == [ablations.signal.SIGINT]
    before, commands.stop = len(commands.calls), None
    assert run(monkeypatch, tmp_path, *words) == 0
    names = [Path(call[call.index("--out") + 1]).name for call in commands.calls[before:]]
    assert names[0] == "references_tokens_1" and not any(name.endswith("_0") for name in names)
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("| 2 | 55.0 ± 7.1 | 40.0 | no |") == 3


def test_arms_of_unequal_budgets_are_refused(commands, monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "--rows", "features", "--seeds", "0", "--steps", "10")
    with pytest.raises(SystemExit, match=r"begun with .*10.* not .*20"):
        run(monkeypatch, tmp_path, "--rows", "features", "--seeds", "0", "--steps", "20")


def test_without_time_nothing_is_begun(commands, monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, "--rows", "experts", "--minutes", "0") == 130 and not commands.calls
