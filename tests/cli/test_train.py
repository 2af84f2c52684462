"""What ``train`` hands to the loop, with a loop that only looks."""

import json
import sys

import jax
import pytest

from mammoth_jax.cli.main import main
from mammoth_jax.core.config import load_yaml
from mammoth_jax.core.sharding import current_rules


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Starts a run in ``tmp_path / "run"`` with more words; returns the state's axes that the loop met."""
    met = []
    monkeypatch.setattr("mammoth_jax.training.tasks.build_work", lambda *given: None)
    monkeypatch.setattr("mammoth_jax.training.loop.train", lambda *given: met.append(current_rules().state))
    monkeypatch.setattr("mammoth_jax.core.compilation_cache.enable_compilation_cache", lambda: None)

    def start(*words):
        assert main(["train", "nano/vae", "--out", str(tmp_path / "run"), *words]) == 0
        return met[-1]

    return start


def test_a_run_goes_on_with_its_sharding_rules_until_others_are_given(train, tmp_path):
    assert train("--rules", "state=data") == ("data",)
    assert load_yaml(tmp_path / "run" / "config.yaml")["run"]["rules"] == "state=data"
    assert train() == ("data",)
    assert train("--rules", "state=fsdp") == ("fsdp",)  # as another --mesh would be
    assert train() == ("fsdp",)
    assert train("--rules", "") == () and train() == ()


def test_rules_of_the_configuration_count_where_none_are_given(train):
    assert train("--run.rules", "state=tensor") == ("tensor",)
    assert train("--run.rules", "state=tensor", "--rules", "state=data") == ("data",)


def test_a_run_that_goes_on_from_a_checkpoint_does_not_take_another_start(train, tmp_path, capsys):
    train()
    run, start = tmp_path / "run", str(tmp_path / "start")
    (run / "origin.json").write_text(json.dumps({"init": start, "dtypes": {}}))
    train("--init", "elsewhere")
    (run / "checkpoints" / "5").mkdir(parents=True)
    train("--init", start)
    assert main(["train", "nano/vae", "--out", str(run), "--init", "elsewhere"]) == 2
    assert f"--init elsewhere: {run} has a checkpoint to go on from, and began with {start}" in (
        capsys.readouterr().err
    )


def test_sharding_rules_that_there_are_not_are_refused(tmp_path, capsys):
    assert main(["train", "nano/vae", "--out", str(tmp_path / "run"), "--run.rules", "wings=fsdp"]) == 2
    assert "sharding rule 'wings=fsdp'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def fail(monkeypatch, tmp_path):
    """Starts a run whose devices refuse with these words, on so many hosts."""
    monkeypatch.setattr("mammoth_jax.training.tasks.build_work", lambda *given: None)
    monkeypatch.setattr("mammoth_jax.core.compilation_cache.enable_compilation_cache", lambda: None)
    monkeypatch.setattr("os._exit", sys.exit)

    def start(words, hosts=1):
        def refuse(*given):
            monkeypatch.setattr(jax, "process_count", lambda: hosts)
            raise jax.errors.JaxRuntimeError(words)

        monkeypatch.setattr("mammoth_jax.training.loop.train", refuse)
        return main(["train", "nano/vae", "--out", str(tmp_path / "run")])

    return start


@pytest.mark.parametrize(
    ("hosts", "named"), [(1, "mammoth-jax train: the devices'"), (2, "host 0 of 2: the devices'")]
)
def test_a_run_that_does_not_fit_its_devices_says_what_to_change_and_is_not_repeated(
    fail, capsys, hosts, named
):
    assert fail("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBufferAssignment: ...", hosts) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert "allocating 9 bytes" in error and "smaller run.batch_size" in error and "mammoth-jax plan" in error


def test_other_errors_of_the_devices_stay_what_they_are(fail, capsys):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: broken"):
        fail("INTERNAL: broken")
    assert fail("INTERNAL: Gloo connection closed", hosts=2) == 1
    assert "could not be finished with the other hosts (INTERNAL: Gloo" in capsys.readouterr().err
