"""Stages of joint training on a tiny model: what moves, what stays, what a run holds, and how it goes on."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.joint import joint_work
from mammoth_jax.training.loop import train
from mammoth_jax.training.metrics import read_metrics
from mammoth_jax.training.runs import abstract_arrays, open_run, read_arrays
from mammoth_jax.training.start_weights import start_weights
from tests.tiny_model import tiny_config
from tests.training.tiny_joint import released, stage, write_data

pytestmark = pytest.mark.slow  # a run of twenty steps is compiled for them


TEXT_ONLY = {"condition": {"mode": "text"}}
PARTS = frozenset(("text_decoder", "generation_experts", "vision_tower", "dit", "refiner"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return str(released(tmp_path_factory.mktemp("init") / "released"))


@pytest.fixture(scope="module")
def pre_stage1(data, init, tmp_path_factory):
    """A finished run of 20 steps: captions to pictures, text features only, the backbone frozen."""
    run, mesh = tmp_path_factory.mktemp("run") / "r", single_device_mesh()
    config = stage(data, model=TEXT_ONLY)
    work = joint_work(config, mesh, init, run)
    open_run(run, config)
    return run, config, train(work, config.run, run, mesh)


def weights(source):
    """All trainable parts by name, out of a folder or a run."""
    model = start_weights(
        tiny_config(), abstract(lambda: Mammoth(tiny_config(), parts=PARTS)), single_device_mesh(), 9, source
    )
    return {name: np.asarray(p[...]) for name, p in named_parameters(model).items()}


def test_twenty_steps_change_what_is_trained_and_nothing_else(pre_stage1, init):
    run, _, state = pre_stage1
    before, after = weights(init), weights(run)
    assert before.keys() == after.keys()
    trained = set(state.params["model"])
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == trained
    assert {name.split(".")[0] for name in trained} == {"decoder", "dit"}
    assert not any(
        name.startswith(("decoder.embed", "vision", "refiner", "dit.reference")) for name in trained
    )


def test_only_what_is_trained_has_moments(pre_stage1):
    _, _, state = pre_stage1
    size = sum(x.size for x in state.params["model"].values())
    moments = sum(x.size for x in jax.tree.leaves(state.optimizer["model"]) if x.ndim)
    assert moments == 2 * size


def test_the_log_says_how_well_and_how_fast(pre_stage1):
    run, config, _ = pre_stage1
    records = read_metrics(run)
    assert [record["step"] for record in records] == list(range(1, 21))
    last = records[-1]
    for name in ("ntp", "ntp_image", "flow", "evaluation/ntp_image", "evaluation/flow"):
        assert np.isfinite(last[name]), name
    for name in ("ntp_visual", "ntp_image_other_words", "ntp_visual_other_words", "flow_other_targets"):
        assert np.isfinite(last[f"evaluation/{name}"]), name
    assert 0 < last["evaluation/visual_entropy"] <= np.log(config.model.mammothtok.codebook_size)
    assert records[-2]["speed/tokens_per_second"] > 0
    assert last["learning_rate/model/generation"] == pytest.approx(1e-3)
    assert np.mean([r["ntp_image"] for r in records[-4:]]) < np.mean([r["ntp_image"] for r in records[:4]])


def test_a_stage_without_flow_learns_visual_tokens_and_leaves_diffusion_as_it_was(data, init, tmp_path):
    run, mesh = tmp_path / "r", single_device_mesh()
    changes = {
        "objective": {"flow": 0},
        "run": {"steps": 4, "evaluation_interval": 4, "checkpoint_interval": 4},
    }
    config = stage(data, ("understanding", "generation"), **changes)
    work = joint_work(config, mesh, init, run)
    open_run(run, config)
    train(work, config.run, run, mesh)
    last = read_metrics(run)[-1]
    assert np.isfinite(last["evaluation/ntp_visual_other_words"]) and not any("flow" in name for name in last)
    before, after = weights(init), weights(run)
    diffusion = {name for name in before if name.startswith(("dit.", "refiner."))}
    chex.assert_trees_all_equal({n: before[n] for n in diffusion}, {n: after[n] for n in diffusion})
    assert any(not np.array_equal(before[n], after[n]) for n in before.keys() - diffusion)


def test_fine_tuning_moves_every_parameter_of_every_part(data, init, tmp_path):
    """All tasks in one row, noise on what is read, two micro-batches, layers computed again, a guard, an average.

    Gates and the output begin at zero, so that gradients need some steps to reach what reads references.
    """
    mesh, tasks = single_device_mesh(), ("t2i", "edit", "it2t")
    config = stage(
        data,
        ("understanding", "generation", "dit"),
        tasks,
        objective={"noise": {"type": "SimilarityNoise", "rate": 0.3, "neighbours": 8}},
        remat={"decoder": {}, "vision": {}, "dit": {"save": ["attention"]}},
        ema_decay=0.9,
        evaluation=None,
        run={"steps": 8, "batch_size": 4, "accumulation": 2, "guard": {"stop_after": 2, "spike": 50}},
    )
    before, run = weights(init), tmp_path / "r"
    work = joint_work(config, mesh, init, run)
    assert not work.frozen.rest["model"] and "neighbours" in work.frozen.models
    open_run(run, config)
    state = train(work, config.run, run, mesh)
    own = state.params["model"]
    assert own.keys() == before.keys()
    assert [name for name in before if np.array_equal(before[name], own[name])] == []
    last = read_metrics(run)[-1]
    assert last["skipped_steps"] == 0 and np.isfinite(last["ntp_text"])
    found = weights(run)["dit.patch_embed.kernel"]
    np.testing.assert_array_equal(found, state.ema["model"]["dit.patch_embed.kernel"])


def test_a_run_goes_on_bit_identically(pre_stage1, data, init, tmp_path):
    _, config, state = pre_stage1
    run, mesh = tmp_path / "r", single_device_mesh()
    open_run(run, config)

    def cut(*_):
        raise RuntimeError("power cut")

    first = dataclasses.replace(joint_work(config, mesh, init, run), evaluate=cut)
    early = dataclasses.replace(config.run, evaluation_interval=12)
    with pytest.raises(RuntimeError):
        train(first, early, run, mesh)
    chex.assert_trees_all_equal(train(joint_work(config, mesh, init, run), config.run, run, mesh), state)


def test_the_next_stage_starts_from_all_that_the_run_was_given(pre_stage1, data, init):
    run, _, state = pre_stage1
    held = abstract_arrays(abstract(lambda: Mammoth(tiny_config(), parts=PARTS)), single_device_mesh())
    found = read_arrays(run, held)
    assert found.keys() == held.keys()
    np.testing.assert_array_equal(
        found["dit.patch_embed.kernel"], state.params["model"]["dit.patch_embed.kernel"]
    )
    np.testing.assert_array_equal(found["vision.pos_embed"], weights(init)["vision.pos_embed"])
