"""The loop: exact resume, what the log holds, interruption, the guard, and checkpoints of another shape."""

import dataclasses
import json
import signal

import chex
import jax
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.guard import Guard
from mammoth_jax.training.loop import Interrupted, TrainingStopped, train
from mammoth_jax.training.metrics import JsonLines, read_metrics
from mammoth_jax.training.work import Load, RunConfig
from tests.training.toy import WIDTH, Numbers, work

CONFIG = RunConfig(steps=12, batch_size=8, checkpoint_interval=5, evaluation_interval=6, keep_every=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    mesh = single_device_mesh()
    return folder, train(work(CONFIG, mesh), CONFIG, folder, mesh)


def values(folder):
    """The logged numbers by step, without times."""
    records = read_metrics(folder)
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})
    return {r["step"]: {k: v for k, v in r.items() if not k.startswith("seconds/")} for r in records}


def test_the_log_holds_each_step_with_terms_rates_and_evaluations(whole):
    folder, state = whole
    logged = values(folder)
    assert list(logged) == list(range(1, 13)) and int(state.step) == 12
    assert logged[6]["evaluation/step_seen"] == 6 and "evaluation/step_seen" not in logged[7]
    for name in ("error", "critic", "gradient_norm/model", "learning_rate/model", "data/rows"):
        assert name in logged[1]
    assert Checkpoints(folder).steps() == [5, 10, 12]


def test_a_run_that_fails_in_the_middle_goes_on_bit_identically(whole, tmp_path):
    mesh = single_device_mesh()
    shorter = work(CONFIG, mesh)

    def fail(state, step, pictures):
        raise RuntimeError("power cut")

    for _ in range(2):  # dies in the evaluation of step 6, one step after a checkpoint, each time
        with pytest.raises(RuntimeError):
            train(dataclasses.replace(shorter, evaluate=fail), CONFIG, tmp_path, mesh)
    state = train(work(CONFIG, mesh), CONFIG, tmp_path, mesh)
    chex.assert_trees_all_equal(state, whole[1])
    assert values(tmp_path) == values(whole[0])


def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path):
    mesh = single_device_mesh()
    ordinary = work(CONFIG, mesh)
    batches = ordinary.batches()
    inner = type(batches).__next__

    class Signalled(type(batches)):
        def __next__(self):
            if self.position == 7:
                signal.raise_signal(signal.SIGTERM)
            return inner(self)

    asked = dataclasses.replace(ordinary, batches=lambda: Signalled(CONFIG.batch_size))
    with pytest.raises(Interrupted, match="stopped at step 8 of 12"):
        train(asked, CONFIG, tmp_path, mesh)
    assert Checkpoints(tmp_path).latest() == 8
    assert max(values(tmp_path)) == 8
    chex.assert_trees_all_equal(train(ordinary, CONFIG, tmp_path, mesh), whole[1])


def test_a_run_resumes_on_another_mesh(whole, tmp_path):
    half = dataclasses.replace(CONFIG, steps=6)
    eight = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    train(work(CONFIG, eight), half, tmp_path, eight)
    one = single_device_mesh()
    state = train(work(CONFIG, one), CONFIG, tmp_path, one)
    assert all(x.sharding.num_devices == 1 for x in jax.tree.leaves(state.params))
    chex.assert_trees_all_close(state.params, whole[1].params, rtol=1e-3, atol=1e-5)


def test_a_step_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path):
    mesh = single_device_mesh()
    with pytest.raises(TrainingStopped, match=r"step 8: .*error = nan.*checkpoint 5 is the last good one"):
        train(work(CONFIG, mesh, broken_at=8), CONFIG, tmp_path, mesh)
    assert Checkpoints(tmp_path).steps() == [5]
    assert max(values(tmp_path)) == 7


def test_skipped_steps_are_counted_and_a_run_of_them_stops(tmp_path):
    mesh = single_device_mesh()
    config = dataclasses.replace(CONFIG, steps=6, guard=Guard(stop_after=2))
    counted = dataclasses.replace(work(config, mesh, broken_at=3), rates={"model": float})
    train(counted, config, tmp_path / "one", mesh)
    logged = values(tmp_path / "one")
    assert [logged[i]["skipped_steps"] for i in (2, 3, 6)] == [0, 1, 1]
    assert [logged[i]["learning_rate/model"] for i in range(1, 7)] == [0, 1, 2, 2, 3, 4]  # of steps taken
    assert "error" not in logged[3] and "error" in logged[4]  # the log holds no NaN, which JSON does not know
    always = dataclasses.replace(work(config, mesh), batches=lambda: Broken(config.batch_size, after=3))
    with pytest.raises(
        TrainingStopped, match=r"step 5: .*is not finite, the last of 2 skipped steps in a row"
    ):
        train(always, config, tmp_path / "two", mesh)


class Broken(Numbers):
    """Every batch after a few holds a NaN."""

    def __init__(self, batch_size, *, after):
        super().__init__(batch_size)
        self.after = after

    def __next__(self):
        batch = super().__next__()
        if self.position > self.after:
            batch["x"][0] = float("nan")
        return batch


def test_speed_is_logged_in_tokens_and_as_a_share_of_the_peak(tmp_path):
    mesh = single_device_mesh()
    config = dataclasses.replace(CONFIG, steps=2, evaluation_interval=9)
    counted = dataclasses.replace(work(config, mesh), load=lambda batch: Load(len(batch["x"]), 1e6))
    train(counted, config, tmp_path, mesh, peak_flops=1e9)
    (first, last) = read_metrics(tmp_path)
    seconds = first["seconds/data"] + first["seconds/compute"]
    assert first["speed/tokens_per_second"] == pytest.approx(8 / seconds)
    assert first["speed/model_flops_utilization"] == pytest.approx(1e6 / seconds / 1e9)


def test_a_line_has_the_seconds_since_the_line_before(tmp_path):
    """Also those of steps between lines, and of a save right after a line."""
    mesh = single_device_mesh()
    config = dataclasses.replace(
        CONFIG, steps=8, log_interval=2, checkpoint_interval=4, evaluation_interval=9
    )
    counted = dataclasses.replace(work(config, mesh), load=lambda batch: Load(len(batch["x"]), 1e6))
    train(counted, config, tmp_path, mesh, peak_flops=1e9)
    lines = {record["step"]: record for record in read_metrics(tmp_path)}
    assert list(lines) == [2, 4, 6, 8]
    assert "seconds/checkpoint" in lines[6] and "seconds/checkpoint" not in lines[2]
    assert lines[6]["seconds/processor"] > 0
    for step, steps in ((2, 2), (6, 4)):
        seconds = lines[step]["seconds/data"] + lines[step]["seconds/compute"]
        assert lines[step]["speed/tokens_per_second"] == pytest.approx(8 * steps / seconds)


def test_chosen_steps_are_traced(tmp_path):
    mesh = single_device_mesh()
    config = dataclasses.replace(CONFIG, steps=4, profile_steps=(2, 3))
    train(work(config, mesh), config, tmp_path, mesh)
    (trace,) = (tmp_path / "profile").iterdir()
    assert trace.name == "2" and any(trace.rglob("*.xplane.pb"))


def test_a_checkpoint_of_another_shape_is_refused_by_name(whole):
    folder, _ = whole
    like = work(CONFIG, single_device_mesh()).initial()
    bigger = dict(like.params["model"], **{"first.kernel": jax.numpy.zeros((WIDTH, 17))})
    words = (
        r"checkpoint 12 is of another configuration: params/model/first.kernel: saved float32\[8, 16\], this"
    )
    with pytest.raises(InputError, match=words):
        Checkpoints(folder).restore(12, dataclasses.replace(like, params={**like.params, "model": bigger}))
    with pytest.raises(InputError, match=r"no checkpoint of step 3; there are \[5, 10, 12\]"):
        Checkpoints(folder).restore(3, like)


def test_a_line_that_was_cut_off_is_taken_out_of_the_log(tmp_path):
    lines = [json.dumps({"step": i, "x": i}) for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "x']))
    log = JsonLines(tmp_path, 2)
    log.write(3, {"x": 30})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "x": 1}, {"step": 2, "x": 2}, {"step": 3, "x": 30}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 9, "accumulation": 2}, "batch_size 9 does not divide into 2 parts"),
        ({"steps": 0}, "run.steps 0: expected 1 or more"),
    ],
)
def test_bad_run_settings_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        RunConfig(**{"steps": 1, "batch_size": 1, **changes})


def test_a_batch_that_does_not_divide_by_the_mesh_is_refused(tmp_path):
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    config = dataclasses.replace(CONFIG, batch_size=12)
    with pytest.raises(InputError, match="gives 12 rows, which do not divide by the mesh's dataxfsdp = 8"):
        train(work(config, mesh), config, tmp_path, mesh)
