"""Runs of joint training as if they had been trained: their start, moved by random numbers, saved as a checkpoint."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.joint import joint_work
from mammoth_jax.training.runs import open_run

STEP = 3


def untrained_run(run, config, init=None):
    """The run, and its state at ``STEP``; the moving average, where one is kept, is other numbers still."""
    work = joint_work(config, single_device_mesh(), init, run)
    open_run(run, config)
    state = work.initial()
    rng = np.random.default_rng(0)

    def moved(x):
        return x + jnp.asarray(0.02 * rng.standard_normal(x.shape), x.dtype)

    params, ema = (jax.tree.map(moved, tree) for tree in (state.params, state.ema))
    state = dataclasses.replace(state, params=params, ema=ema, step=jnp.int32(STEP))
    checkpoints = Checkpoints(run)
    checkpoints.save(STEP, state, {"position": 0})
    checkpoints.close()
    return state
