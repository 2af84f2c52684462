"""What ``train`` hands to the loop, with a loop that only looks."""

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


def test_sharding_rules_that_there_are_not_are_refused(tmp_path, capsys):
    assert main(["train", "nano/vae", "--out", str(tmp_path / "run"), "--run.rules", "wings=fsdp"]) == 2
    assert "sharding rule 'wings=fsdp'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
