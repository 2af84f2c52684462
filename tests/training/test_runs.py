"""Runs on disk: their configuration, and weights read out of their checkpoints."""

import dataclasses

import chex
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.training.checkpoint import Checkpoints, complete_steps
from mammoth_jax.training.guard import Guard
from mammoth_jax.training.loop import train
from mammoth_jax.training.runs import (
    abstract_arrays,
    is_run,
    load_weights,
    open_run,
    read_frozen,
    recorded_rules,
    save_frozen,
    split_step,
    with_step,
)
from mammoth_jax.training.work import RunConfig
from tests.training.toy import Net, work

CONFIG = RunConfig(steps=4, batch_size=8, checkpoint_interval=2, evaluation_interval=4)


@dataclasses.dataclass(frozen=True)
class Told:
    """A configuration that holds nothing but its run."""

    run: RunConfig = CONFIG
    words: tuple[str, ...] = ("a",)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    mesh = single_device_mesh()
    open_run(folder, Told())
    return folder, train(work(CONFIG, mesh), CONFIG, folder, mesh)


def test_weights_of_a_run_are_its_moving_average_where_one_is_kept(run):
    folder, state = run
    mesh = single_device_mesh()
    for player, kept in (("model", state.ema["model"]), ("critic", state.params["critic"])):
        module = load_weights(f"{folder}@4", abstract(Net), mesh, player)
        for name, p in named_parameters(module).items():
            np.testing.assert_array_equal(p[...], kept[name])
    earlier = load_weights(f"{folder}@2", abstract(Net), mesh)
    assert not np.array_equal(
        named_parameters(earlier)["first.kernel"][...], state.ema["model"]["first.kernel"]
    )


def test_a_step_that_is_not_there_is_named(run):
    with pytest.raises(InputError, match=r"no checkpoint of step 3; there are \[2, 4\]"):
        load_weights(f"{run[0]}@3", abstract(Net), single_device_mesh())


def test_a_reader_leaves_alone_what_the_trainer_is_writing(run, tmp_path):
    def save(step):
        checkpoints = Checkpoints(tmp_path, keep_last=9)
        checkpoints.save(step, run[1], {"hosts": []})
        checkpoints.close()

    save(4)
    half = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").write_text("half of it")
    assert with_step(tmp_path) == f"{tmp_path}@4" and complete_steps(tmp_path) == [4]
    assert (half / "state").is_file()
    save(5)  # the trainer, started again
    assert not half.exists() and complete_steps(tmp_path) == [4, 5]


def test_frozen_weights_are_those_of_the_last_start(tmp_path):
    mesh = single_device_mesh()
    weights = {name: p[...] for name, p in named_parameters(initialize(Net, 0, mesh)).items()}
    wanted = abstract_arrays(abstract(Net), mesh)
    save_frozen(tmp_path, {name: 0 * x for name, x in weights.items()})
    del weights["second.bias"]
    save_frozen(tmp_path, weights)
    chex.assert_trees_all_equal(read_frozen(tmp_path, wanted), weights)
    save_frozen(tmp_path, {})
    assert read_frozen(tmp_path, wanted) == {}


def test_a_folder_without_checkpoints_stays_without(tmp_path):
    with pytest.raises(InputError, match="no checkpoint; there are none"):
        with_step(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_run_of_another_module_is_refused(run):
    from mammoth_jax.layers.linear import Linear

    with pytest.raises(InputError, match=r"does not hold this model: 6 parameters differ, e.g. bias"):
        load_weights(
            run[0], abstract(lambda: Linear(3, 4, axes=(None, None), bias=True)), single_device_mesh()
        )


def test_a_run_goes_on_only_with_its_own_configuration(run, tmp_path):
    folder, _ = run
    open_run(folder, Told())
    open_run(folder, Told(run=dataclasses.replace(CONFIG, checkpoint_interval=1, keep_last=9)))
    with pytest.raises(InputError, match=r"run of another configuration: run.seed was 0, is 1.*--init"):
        open_run(folder, Told(run=dataclasses.replace(CONFIG, seed=1)))
    with pytest.raises(InputError, match=r"words was \['a'\], is \['b'\]"):
        open_run(folder, Told(words=("b",)))
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files but no run"):
        open_run(tmp_path, Told())


def test_a_run_keeps_the_sharding_rules_that_it_was_last_started_with(tmp_path):
    folder = tmp_path / "r"
    assert recorded_rules(folder) is None
    open_run(folder, Told())
    assert recorded_rules(folder) is None
    open_run(folder, Told(run=dataclasses.replace(CONFIG, rules="state=data")))
    assert recorded_rules(folder) == "state=data"
    with pytest.raises(InputError, match="'wing' is not a mesh axis"):
        dataclasses.replace(CONFIG, rules="state=wing")


def test_a_run_of_a_tokenizer_does_not_ask_about_the_rest_of_the_model(tmp_path):
    from tests.training.tiny_tokenizer import training

    folder = tmp_path / "r"
    open_run(folder, training())
    open_run(folder, training(model={"refiner": {"num_queries": 7}}))
    with pytest.raises(InputError, match=r"model.mammothtok.codebook_size was 32, is 64"):
        open_run(folder, training(model={"mammothtok": {"codebook_size": 64}}))


def test_settings_that_did_not_exist_when_a_run_began_count_as_their_defaults(tmp_path):
    folder = tmp_path / "r"
    open_run(folder, Told())
    file = folder / "config.yaml"
    kept = [line for line in file.read_text().splitlines() if "average_steps" not in line]
    file.write_text("\n".join(kept) + "\n")
    open_run(folder, Told())
    changed = dataclasses.replace(CONFIG, guard=Guard(average_steps=7))
    with pytest.raises(InputError, match=r"run.guard.average_steps was 100, is 7"):
        open_run(folder, Told(run=changed))


def test_run_and_step_are_told_apart(run):
    assert split_step("a/b@12")[1] == 12 and split_step("a/b")[1] is None
    assert is_run(run[0]) and is_run(f"{run[0]}@4") and not is_run(run[0].parent)
