"""The ablations with commands that only record: what is trained once, what is compared, going on after a stop."""

import json
import subprocess
from pathlib import Path

import pytest

from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.joint_config import JointTraining
from tests.script_module import script_module

ablations = script_module("ablations")


class Recorder:
    """Stands in for ``subprocess.Popen``: writes the scores that ``eval`` would; the run named takes too long, and
    stops with 130 when it is interrupted."""

    def __init__(self):
        self.calls, self.signals, self.stop = [], [], None

    def __call__(self, command):
        self.calls.append(command[3:])
        self._out = Path(command[command.index("--out") + 1])
        self._out.mkdir(exist_ok=True)
        if "eval" in command:
            score = 0.5 + 0.1 * int(self._out.name[-1])
            task = command[command.index("--tasks") + 1]
            ends = {"": score, ".shuffled": 0.1, ".unchanged": 0.4}
            scores = {f"{task}.overall{end}": value for end, value in ends.items()}
            (self._out / "scores.json").write_text(json.dumps(scores))
        return self

    def wait(self, timeout=None):
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


def run(monkeypatch, tmp_path, *words):
    monkeypatch.setattr(
        "sys.argv", ["ablations.py", "--runs", "runs", "--out", str(tmp_path / "out"), *words]
    )
    return ablations.main()


def test_every_arm_is_a_configuration_that_trains_and_differs_from_the_others():
    seen = []
    for training in dict.fromkeys(arm.training for row in ablations.ROWS for arm in row.arms):
        config = load_training(Path(training.config), None, training.overrides(Path("runs"), 0))
        assert isinstance(config, JointTraining) and isinstance(config.model, MammothConfig)
        seen.append((training.start, config))
    assert not any(a == b for n, a in enumerate(seen) for b in seen[:n])


def test_a_run_that_two_rows_compare_is_trained_once(commands, monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, "--rows", "noise", "modes", "--seeds", "0") == 0
    trained = [Path(call[call.index("--out") + 1]).name for call in commands.calls if call[0] == "train"]
    assert trained == ["second_stage_0", "noise_region_0", "noise_none_0", "modes_text_0"]
    assert sum(call[0] == "eval" for call in commands.calls) == 6


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
    assert run(monkeypatch, tmp_path, "--minutes", "0") == 130 and not commands.calls
