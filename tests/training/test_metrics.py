"""Writers beside the JSON lines: TensorBoard, Weights & Biases, and what a missing extra says."""

import sys
import types

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.metrics import LOGGERS, TensorBoard, WeightsAndBiases


def test_tensorboard_events_hold_the_numbers(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    writer = TensorBoard(tmp_path, 0)
    writer.write(3, {"l2": 0.25, "word": "not a number"})
    writer.close()
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    data, found, at = file.read_bytes(), {}, 0
    while at < len(data):  # TFRecord: length, checksum, bytes, checksum
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        at += 16 + size
    assert found == {"l2": (3, 0.25)}


@pytest.fixture
def wandb(monkeypatch):
    """What W&B was called with."""
    calls = []

    class Run:
        def define_metric(self, name, step_metric):
            calls.append((name, step_metric))

        def log(self, numbers):
            calls.append(numbers)

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return calls


def test_weights_and_biases_gets_the_steps_as_a_metric_of_their_own(tmp_path, wandb):
    """A run that goes on from a checkpoint logs steps again, which W&B's own steps would not take."""
    writer = WeightsAndBiases(tmp_path, 5)
    writer.write(6, {"l2": 1.0})
    writer.close()
    assert wandb[1:] == [("*", "step"), {"step": 6, "l2": 1.0}, "finished"]


def test_a_run_resumes_under_its_own_id_which_no_other_run_of_that_name_has(tmp_path, wandb):
    for folder in ("a", "a", "b"):
        run = tmp_path / folder / "sft"
        run.mkdir(parents=True, exist_ok=True)
        WeightsAndBiases(run, 0).close()
    first, again, other = (call for call in wandb if isinstance(call, dict))
    assert first == again and first["id"] != other["id"]
    assert first["name"] == other["name"] == "sft" and first["resume"] == "allow"


@pytest.mark.parametrize("name", list(LOGGERS))
def test_a_logger_whose_package_is_missing_names_the_extra(name, tmp_path, monkeypatch):
    for module in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'mammoth-jax\[{name}\]'"):
        LOGGERS[name](tmp_path, 0)
