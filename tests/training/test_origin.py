"""What a run starts from: what it is told, and once it has a checkpoint what it began with."""

import json

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.origin import start_of


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint, and no word yet of what it began with."""
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    return tmp_path / "run"


def began(run, init):
    (run / "origin.json").write_text(json.dumps({"init": init and str(init), "dtypes": {}}))


def test_a_run_without_a_checkpoint_may_start_from_anywhere(tmp_path):
    began(tmp_path, tmp_path / "start")
    assert start_of(tmp_path, "elsewhere") == "elsewhere" and start_of(tmp_path, None) is None
    assert start_of(tmp_path / "new", "elsewhere") == "elsewhere"


def test_a_run_goes_on_with_the_step_that_it_began_with(run, tmp_path, monkeypatch):
    start = tmp_path / "start"
    began(run, f"{start}@6")
    monkeypatch.chdir(tmp_path)
    for said in (str(start), f"{start}@6", "start", "run/../start"):
        assert start_of(run, said) == f"{start}@6"
    assert start_of(run, None) is None  # it is gone, and a run that goes on may not need it
    start.mkdir()
    assert start_of(run, None) == f"{start}@6"


@pytest.mark.parametrize("said", ["elsewhere", "start@7"])
def test_a_run_goes_on_from_no_other_start(said, run, tmp_path):
    began(run, tmp_path / "start@6")
    with pytest.raises(InputError, match=rf"--init .*{said}: .*run has a checkpoint .* began with .*start@6"):
        start_of(run, str(tmp_path / said))
    began(run, None)
    with pytest.raises(InputError, match="began with random weights"):
        start_of(run, str(tmp_path / said))


def test_a_run_that_does_not_say_what_it_began_with_takes_what_it_is_told(run):
    assert start_of(run, "elsewhere") == "elsewhere" and start_of(run, None) is None
