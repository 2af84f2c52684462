"""The training step for the ahead-of-time compiler: what it is called with is what ``train`` calls it with."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mammoth_jax.benchmarks.training_step import full_rows, step_arguments, step_cost
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.joint import MODEL, joint_step

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MESH)


def nano(stage, *overrides):
    return load_training(Path(f"nano/{stage}"), None, overrides)


def test_the_step_takes_its_arguments_and_gives_the_state_back(mesh):
    config = nano("text")
    player, state, frozen, batch = step_arguments(config, mesh)
    assert set(state.params[MODEL]) == set(player.names)
    root = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(mesh):
        after, report = jax.eval_shape(joint_step(config, player), state, frozen, batch, root)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(after) == shapes(state)
    assert "ntp" in report.terms


def test_what_a_stage_freezes_is_held_in_its_number_format_and_has_no_moments(mesh):
    groups = [{"name": "dit", "schedule": {"type": "WarmupConstant", "learning_rate": 1e-3}}]
    alone = nano("pre_stage2", "--optimizer.muon", "null", "--optimizer.groups", json.dumps(groups))
    config = dataclasses.replace(alone, dtype="bfloat16")
    _, state, frozen, _ = step_arguments(config, mesh)
    rest = frozen.rest[MODEL]
    assert any(n.startswith("decoder.") for n in rest) and not rest.keys() & state.params[MODEL].keys()
    assert {str(x.dtype) for x in rest.values()} == {"bfloat16"}
    moments = sum(x.size for x in jax.tree.leaves(state.optimizer[MODEL]) if x.ndim)
    assert moments == 2 * sum(x.size for x in state.params[MODEL].values())


@pytest.mark.parametrize("stage", ["text", "understanding", "pre_stage1", "sft"])
def test_full_rows_fill_the_tokens_and_overfill_nothing(stage):
    config = nano(stage)
    packing, rows = config.data.packing, full_rows(config)
    assert np.count_nonzero(rows["token_segments"]) == packing.tokens
    for name, budget in (
        ("condition_segments", packing.conditions),
        ("target_sample", packing.targets),
        ("joint_segments", packing.joint),
    ):
        assert (name in rows) == (packing.samples > 0)
        if name in rows:
            assert rows[name].shape == (1, budget) and rows[name].any()


def test_a_step_costs_by_its_rows(mesh):
    config = nano("pre_stage1")
    twice = nano("pre_stage1", "--run.batch_size", str(2 * config.run.batch_size))
    player = step_arguments(config, mesh)[0]
    once, more = step_cost(config, player), step_cost(twice, player)
    assert more.flops == pytest.approx(2 * once.flops) and more.bytes == once.bytes > once.weights > 0


def test_rows_that_do_not_divide_by_the_mesh_are_refused(mesh):
    with pytest.raises(InputError, match=r"run.batch_size 6 .* do not divide"):
        step_arguments(nano("pre_stage1", "--run.batch_size", "6"), mesh)
