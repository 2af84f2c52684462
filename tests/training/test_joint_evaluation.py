"""What an evaluation counts besides the objective's terms."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.objectives.ntp import IGNORED
from mammoth_jax.training.joint import joint_player
from mammoth_jax.training.joint_evaluation import JointEvaluation, entropy, visual_counts
from mammoth_jax.training.step import Frozen
from tests.tiny_model import tiny_config
from tests.training.tiny_joint import stage

DECODER = dataclasses.replace(
    tiny_config().backbone.decoder, vocab_size=10, gen_vocab_start_index=10, gen_vocab_size=6
)


def test_only_visual_tokens_that_are_predicted_are_counted():
    labels = np.asarray([[11, 3, 12, 12, 10, 14], [12, IGNORED, 15, 13, IGNORED, IGNORED]])
    drawn = np.asarray([[1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 1, 0]])  # not the line end 10, nor the picture's, 13
    cells = np.where(drawn[..., None] > 0, 0, -1).repeat(2, axis=-1)
    batch = {"labels": jnp.asarray(labels), "noise_cells": jnp.asarray(cells)}
    # a row's first token is never a target
    assert visual_counts(batch, DECODER).tolist() == [0, 0, 2, 0, 1, 1]
    assert not visual_counts({"labels": jnp.asarray(labels)}, DECODER).any()


def test_held_out_data_is_opened_before_the_first_step_and_closed_again(tmp_path):
    told, config = [], stage(tmp_path)
    batches = SimpleNamespace(close=lambda: told.append("closed"))

    def open_data(data, rows, change_pools):
        told.append((data, rows))
        return batches

    parts = config, joint_player(config), Frozen({}, {"model": {}}), single_device_mesh()
    JointEvaluation(*parts, open_data)
    assert told == [(config.evaluation, 2), "closed"]


def test_entropy_is_in_nats_of_what_occurs():
    assert entropy(np.asarray([3, 0, 3, 3, 3])) == pytest.approx(np.log(4))
    assert entropy(np.asarray([0, 7])) == 0
    assert entropy(np.asarray([3, 1])) == pytest.approx(0.5623, abs=1e-4)
