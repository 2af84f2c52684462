"""Stages that start again, or go on, without a step being made."""

import chex
import numpy as np

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.training.joint import joint_work
from tests.training.tiny_joint import stage


def test_a_start_that_came_to_no_checkpoint_leaves_no_weights_to_the_next(tmp_path):
    """Other weights by another seed, where users have another --init."""
    run, mesh = tmp_path / "run", single_device_mesh()
    first, second = (stage(tmp_path, evaluation=None, run={"seed": seed}) for seed in (0, 1))

    def frozen(config, run):
        return joint_work(config, mesh, None, run).frozen.rest["model"]

    run.mkdir()
    joint_work(first, mesh, None, run).initial()
    wanted = frozen(second, None)
    chex.assert_trees_all_equal(frozen(second, run), wanted)
    joint_work(second, mesh, None, run).initial()
    (run / "checkpoints" / "1").mkdir(parents=True)  # from here on its own count
    chex.assert_trees_all_equal(frozen(first, run), wanted)
    assert any(not np.array_equal(x, wanted[name]) for name, x in frozen(first, None).items())


def test_a_run_that_goes_on_and_freezes_nothing_reads_no_start_weights(tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("start weights were read")

    monkeypatch.setattr("mammoth_jax.training.joint.start_weights", read)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    groups, tasks = ("understanding", "generation", "dit"), ("t2i", "edit", "it2t")
    work = joint_work(stage(tmp_path, groups, tasks, evaluation=None), single_device_mesh(), None, tmp_path)
    assert work.frozen.rest == {"model": {}}
