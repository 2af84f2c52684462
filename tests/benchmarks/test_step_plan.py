"""A training step on paper: what the real state weighs, what policies and meshes change, what nothing divides."""

import dataclasses
from pathlib import Path

import jax
import pytest

from mammoth_jax.benchmarks.placement import place, replicated
from mammoth_jax.benchmarks.step_activations import stacks
from mammoth_jax.benchmarks.step_plan import StepPlan
from mammoth_jax.benchmarks.training_step import step_arguments
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.core.sharding import parse_rules, use_rules
from mammoth_jax.layers.remat import Remat
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.joint_config import RematConfig
from mammoth_jax.training.lora import LoRA
from mammoth_jax.training.picture_encoder import encoding_bytes

MESH = {"data": 1, "fsdp": 2, "tensor": 2}


@pytest.fixture(scope="module")
def config():
    return load_training(Path("nano/pre_stage2"), None, ["--run.batch_size", "8"])


@pytest.fixture(scope="module")
def plan(config):
    return StepPlan("nano/pre_stage2", config, "v5e:2x2")


def with_remat(plan, **parts):
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, remat=RematConfig(**parts)))


@pytest.mark.parametrize(
    ("mesh", "rules"),
    [
        (MESH, ""),
        ({"data": 2, "fsdp": 2, "tensor": 1}, "embed=fsdp+data"),
        ({"data": 2, "fsdp": 2, "tensor": 1}, "state=data"),
    ],
    ids=["tensor", "two axes for weights", "one more for the state"],
)
def test_state_and_frozen_weights_are_those_that_a_step_is_called_with(plan, config, mesh, rules):
    assert_planned_as_called(plan, dataclasses.replace(config, dtype="bfloat16"), mesh, rules)


def test_adapters_are_all_that_a_fine_tuning_with_them_trains(plan, config):
    optimizer = dataclasses.replace(config.optimizer, muon=None)
    config = dataclasses.replace(
        config, dtype="bfloat16", lora=LoRA(rank=4), ema_decay=None, optimizer=optimizer
    )
    adapted = dataclasses.replace(plan, config=config)
    assert_planned_as_called(adapted, config, MESH, "")
    few, all_ = adapted(MESH)["memory"], plan(MESH)["memory"]
    assert 0 < few["masters"] < all_["masters"] / 4
    assert few["compute weights"] > few["masters"]  # kernels merged with their adapters


def assert_planned_as_called(plan, config, mesh, rules):
    with use_rules(parse_rules(rules)):
        _, state, frozen, batch = step_arguments(config, make_mesh(mesh, jax.devices()[:4]))
        memory = plan(mesh)["memory"]

    def held(tree):
        leaves = [x for x in jax.tree.leaves(tree) if x.ndim]
        return sum(x.dtype.itemsize * int(x.size) // len(set_of_shards(x)) for x in leaves)

    def set_of_shards(x):
        return set(map(str, x.sharding.devices_indices_map(x.shape).values()))

    assert memory["picture encoders"] == encoding_bytes(config) > 0
    moments = [x for x in jax.tree.leaves(state.optimizer) if x.shape != (3,)]  # Muon's three coefficients
    assert memory["masters"] == held(state.params) and memory["moments"] == held(moments)
    assert memory["averages"] == held(state.ema) and memory["frozen"] == held(frozen.rest)
    assert memory["batch"] == held(batch)


def test_a_policy_keeps_less_and_offloading_moves_it_to_the_host(plan):
    everything = plan(MESH)
    inputs = with_remat(plan, decoder=Remat(), dit=Remat(), vision=Remat())(MESH)
    attention = with_remat(plan, decoder=Remat(save=("attention",)), dit=Remat(), vision=Remat())(MESH)
    host = with_remat(plan, decoder=Remat(offload=("layer_input",)), dit=Remat(), vision=Remat())(MESH)
    kept = [each["memory"]["activations"] for each in (host, inputs, attention, everything)]
    assert kept == sorted(kept) and len(set(kept)) == 4
    assert host["host_memory"] == kept[1] - kept[0] and inputs["host_memory"] == 0
    decoder = next(stacks(plan.config))
    rows = 4  # of 8 over fsdp=2
    assert host["host_memory"] == rows * 2 * decoder.layers * decoder.tokens * decoder.width


def test_a_divided_sequence_keeps_its_part(plan):
    whole = with_remat(plan, decoder=Remat(), dit=Remat(), vision=Remat())
    before = whole(MESH)["memory"]
    with use_rules(parse_rules("length=tensor")):
        after = whole(MESH)["memory"]
    assert after["activations"] < before["activations"] and after["masters"] == before["masters"]


def test_a_state_in_smaller_parts_is_gathered_for_use(plan):
    mesh = {"data": 2, "fsdp": 2, "tensor": 1}
    before = plan(mesh)
    with use_rules(parse_rules("state=data")):
        after = plan(mesh)
    masters, used = (
        [each["memory"][name] for each in (before, after)] for name in ("masters", "compute weights")
    )
    assert masters[1] < 0.6 * masters[0] and used[1] >= used[0] > 0
    assert after["links"]["gather weights"] > before["links"]["gather weights"]


def test_one_device_sends_nothing_and_copies_send_only_gradients(config):
    alone = StepPlan("x", config, "v5e:1x1")({"data": 1, "fsdp": 1, "tensor": 1})
    assert sum(alone["links"].values()) == 0 and alone["replicated"] == []
    copies = StepPlan("x", config, "v5e:2x2")({"data": 4, "fsdp": 1, "tensor": 1})
    assert copies["links"]["gather weights"] == 0 < copies["links"]["reduce gradients"]
    assert copies["memory"]["masters"] == alone["memory"]["masters"]
    assert copies["seconds"]["compute"] == pytest.approx(alone["seconds"]["compute"] / 4)


def test_what_no_width_divides_is_listed_with_what_it_costs():
    lost = place("a", (63, 61), ("embed", "mlp"), True, {"fsdp": 4, "tensor": 1})
    moved = place("b", (63, 64), ("embed", "mlp"), True, {"fsdp": 4, "tensor": 1})
    norm = place("c", (63,), (None,), True, {"fsdp": 4, "tensor": 1})
    assert (lost.shards, lost.missing, lost.excess) == (1, ("fsdp",), 63 * 61 - 63 * 61 // 4)
    assert (moved.shards, moved.over_batch, moved.missing) == (4, 4, ())
    assert [each["name"] for each in replicated([norm, moved, lost], lambda p: 12 if p.trained else 2)] == [
        "a"
    ]


def test_a_mesh_of_another_size_and_rows_that_do_not_divide_are_refused(plan, config):
    with pytest.raises(InputError, match=r"needs 2 devices, v5e:2x2 has 4"):
        plan({"fsdp": 2})
    six = dataclasses.replace(config, run=dataclasses.replace(config.run, batch_size=6))
    with pytest.raises(InputError, match=r"run.batch_size 6 .* do not divide by the 4"):
        StepPlan("x", six, "v5e:2x2")({"fsdp": 4})
