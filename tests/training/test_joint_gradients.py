"""Every gradient of a joint step on a mesh is that of one device; losses alone would not show a wrong one."""

import dataclasses

import jax
import numpy as np
import pytest

from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.sharding import parse_rules, use_rules
from mammoth_jax.training.joint import joint_work
from mammoth_jax.training.loop import batch_sharding
from tests.training.tiny_joint import MIXED, mixed_data, released, stage

pytestmark = pytest.mark.slow

EIGHT = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """All tasks in a row, guidance dropout on, everything trained."""
    folder = tmp_path_factory.mktemp("data")
    groups = ("understanding", "generation", "dit")
    return stage(
        folder, groups, MIXED, data=mixed_data(folder), evaluation=None, run={"steps": 2, "batch_size": 4}
    )


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return str(released(tmp_path_factory.mktemp("init") / "released"))


def first_moments(config, init, mesh):
    """AdamW's first moments after a step from random weights: a tenth of the clipped gradients, by name."""
    random = np.random.default_rng(0)

    def moved(x):  # what starts at zero would let no gradient through
        noise = 0.05 * random.standard_normal(x.shape).astype(np.float32)
        return jax.device_put(np.asarray(x) + noise, x.sharding)

    with jax.set_mesh(mesh):
        work = joint_work(config, mesh, init)
        rows = batch_sharding(config.run, mesh)
        batch = {name: jax.device_put(x[None], rows) for name, x in next(work.batches()).items()}
        state = work.initial()
        params = {
            player: {name: moved(own[name]) for name in sorted(own)} for player, own in state.params.items()
        }
        state = dataclasses.replace(state, params=params)
        state, _ = jax.jit(work.step)(state, work.frozen, batch, jax.random.key(0))
    leaves = jax.tree_util.tree_flatten_with_path(state.optimizer)[0]
    named = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves if hasattr(x, "shape")}
    return {name: x for name, x in named.items() if ".mu[" in name}


@pytest.fixture(scope="module")
def alone(config, init):
    return first_moments(config, init, single_device_mesh())


@pytest.mark.parametrize("rules", ["", "embed=fsdp+data,length=tensor", "state=data"])
def test_every_gradient_on_three_axes_is_that_of_one_device(config, init, alone, rules):
    with use_rules(parse_rules(rules)):
        spread = first_moments(config, init, make_mesh(EIGHT))
    assert set(spread) == set(alone) and len(alone) > 100
    error = {
        name: np.linalg.norm(spread[name] - x) / np.linalg.norm(x) for name, x in alone.items() if x.any()
    }
    assert len(error) > 0.8 * len(alone)
    worst = sorted(error.items(), key=lambda pair: -pair[1])[:5]
    print(rules or "default", worst)
    assert worst[0][1] < 2e-5, worst
