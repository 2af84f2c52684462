"""A later stage's discriminator is the one that the stage before trained, with what LeCam knows of it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.objectives.adversarial import LogitAverages
from mammoth_jax.training.adversary import load_adversary
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.runs import open_run
from mammoth_jax.training.tasks import build_work
from mammoth_jax.training.tokenizer import tokenizer_work
from tests.training.tiny_tokenizer import training, untrained_run

LOGITS = {"real": 0.5, "generated": -0.25, "weight": 0.75}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The run of an earlier stage, and its last state."""
    folder, config = tmp_path_factory.mktemp("stage") / "run", training(run={"seed": 7})
    open_run(folder, config)
    state = tokenizer_work(config, single_device_mesh()).initial()
    logits = LogitAverages(**{name: jnp.float32(x) for name, x in LOGITS.items()})
    state = dataclasses.replace(state, carried={**state.carried, "logits": logits})
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, state, {"hosts": []})
    checkpoints.close()
    return folder, state


def network(**changes):
    return training(discriminator={"network": changes}).discriminator.network


def test_a_stage_goes_on_with_the_discriminator_of_the_run_that_it_starts_from(before):
    folder, last = before
    state = build_work(training(), single_device_mesh(), str(folder)).initial()
    own = state.params["discriminator"]
    assert own.keys() == last.params["discriminator"].keys()
    for name, x in last.params["discriminator"].items():
        np.testing.assert_array_equal(own[name], x)
    assert {name: float(getattr(state.carried["logits"], name)) for name in LOGITS} == LOGITS
    fresh = tokenizer_work(training(), single_device_mesh()).initial()
    assert any(not np.array_equal(fresh.params["discriminator"][name], x) for name, x in own.items())


def test_a_start_without_a_discriminator_of_these_shapes_gets_a_new_one(before, tmp_path):
    folder, _ = before
    mesh = single_device_mesh()
    assert load_adversary(folder, "mammothtok", network(), mesh) is not None
    assert load_adversary(folder, "mammothtok", network(channels=4), mesh) is None
    assert load_adversary(tmp_path, "mammothtok", network(), mesh) is None
    plain = untrained_run(tmp_path / "plain", training(losses={"adversarial": None}, discriminator=None))
    assert load_adversary(plain, "mammothtok", network(), mesh) is None
