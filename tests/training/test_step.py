"""The compiled step: accumulation, whose gradient goes where, frozen parameters, devices, and steps that break."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.sharding import parse_rules, use_rules
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.training.guard import Guard
from mammoth_jax.training.optimizer import Group, assign_groups
from mammoth_jax.training.player import Outcome
from mammoth_jax.training.schedules import WarmupConstant, WarmupCosine
from mammoth_jax.training.step import averaging_decay, build_step
from tests.training.toy import WIDTH, criticise, generate, player, players, state_and_frozen

ROOT = jax.random.key(0)


def batch(rows=8, parts=1, seed=0):
    x = np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    return {"x": jnp.asarray(x.reshape(parts, rows // parts, WIDTH))}


def run(who, data, *, steps=1, mesh=None, seed=0, guard=Guard(), **options):
    mesh = mesh or single_device_mesh()
    with jax.set_mesh(mesh):
        state, frozen = state_and_frozen(who, mesh, seed, guard)
        step = jax.jit(build_step(who, guard=guard, **options))
        for _ in range(steps):
            state, report = step(state, frozen, data, ROOT)
    return state, report


def test_micro_batches_give_the_gradients_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr("jax.random.normal", lambda key, shape: jnp.zeros(shape))  # noise is drawn per part
    whole, one = run(players(), batch())
    parts, two = run(players(), batch(parts=4), accumulation=4)
    chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.tree.map(float, one.terms), jax.tree.map(float, two.terms), rtol=1e-5)


def count_words(models, batch, passed, carried, key, step, whole):
    """A loss over words, of which parts and devices hold different numbers; divided by those of the whole batch."""
    losses = jnp.mean(jnp.square(models["model"](batch["x"])), axis=-1) * batch["counts"]
    terms = {"error": LossSum(jnp.sum(losses), jnp.sum(batch["counts"]))}
    return Outcome(whole["parts"] * terms["error"].total / whole["words"], terms, None, carried)


@pytest.mark.parametrize(("parts", "mesh"), [(4, None), (1, {"data": 2, "fsdp": 2, "tensor": 2})])
def test_a_loss_over_words_is_that_of_the_whole_batch_however_it_is_divided(parts, mesh):
    def survey(batch):
        return {"words": jnp.sum(batch["counts"]), "parts": batch["counts"].shape[0]}

    who = {"model": dataclasses.replace(player(count_words), survey=survey)}
    counts = jnp.asarray([1.0, 0, 5, 2, 0, 0, 9, 1])
    whole, one = run(who, batch() | {"counts": counts[None]})
    data = batch(parts=parts) | {"counts": counts.reshape(parts, -1)}
    other, two = run(who, data, accumulation=parts, mesh=mesh and make_mesh(mesh))
    chex.assert_trees_all_close(
        jax.device_get(one.gradient_norms), jax.device_get(two.gradient_norms), rtol=1e-5
    )
    chex.assert_trees_all_close(
        jax.device_get(whole.params), jax.device_get(other.params), rtol=1e-5, atol=1e-6
    )
    assert float(two.terms["error"].weight) == 18


def test_gradients_far_above_their_average_skip_the_step():
    guard = Guard(stop_after=9, spike=5.0, average_steps=3)
    who = {
        "model": dataclasses.replace(player(count_words), survey=lambda batch: {"words": 1.0, "parts": 1.0})
    }
    mesh = single_device_mesh()
    state, frozen = state_and_frozen(who, mesh, guard=guard)
    step = jax.jit(build_step(who, guard=guard))
    taken = []
    for scale in (1, 1, 20, 1, 900, 900, 1):  # that of 20 comes before there is an average to go by
        before = state
        state, report = step(state, frozen, batch() | {"counts": jnp.full((1, 8), float(scale))}, ROOT)
        taken.append(bool(report.applied))
        if not report.applied:
            chex.assert_trees_all_equal(state.params, before.params)
    assert taken == [True] * 4 + [False, False, True]
    assert int(state.guard["skipped"]) == 2 and int(state.guard["in_row"]) == 0


def test_each_half_moves_only_its_own_player():
    who = players()
    before, _ = state_and_frozen(who, single_device_mesh())
    for alone, other in (("model", "critic"), ("critic", "model")):
        quiet = {n: p if n == alone else player(_flat(p.objective)) for n, p in who.items()}
        after, report = run(quiet, batch())
        chex.assert_trees_all_close(after.params[other], _decayed(before.params[other]), rtol=1e-6)
        assert float(report.gradient_norms[other]) == 0 < float(report.gradient_norms[alone])


def _flat(objective):
    """The objective with a constant loss: its player has no gradient of its own."""

    def call(*args):
        outcome = objective(*args)
        return type(outcome)(jnp.float32(0), outcome.terms, outcome.passed, outcome.carried)

    return call


def _decayed(params):
    """What AdamW leaves of weights without a gradient: matrices shrink by rate times decay."""
    return {n: x * (1 - 1e-2 * 0.1) if n.endswith("kernel") else x for n, x in params.items()}


def test_parameters_of_no_group_stay_bit_identical_and_have_no_moments():
    who = {"model": player(generate, groups=("second",)), "critic": player(criticise)}
    state, frozen = state_and_frozen(who, single_device_mesh())
    assert set(state.params["model"]) == {"second.kernel", "second.bias"}
    assert set(frozen.rest["model"]) == {"first.kernel", "first.bias"}
    trained = sum(x.size for x in state.params["model"].values())
    moments = sum(x.size for x in jax.tree.leaves(state.optimizer["model"]) if x.ndim)
    assert moments == 2 * trained
    after, _ = run(who, batch())
    assert not np.array_equal(after.params["model"]["second.kernel"], state.params["model"]["second.kernel"])


@pytest.mark.parametrize("rules", ["", "embed=fsdp+data", "state=data"])
def test_one_device_and_eight_take_the_same_steps(rules):
    one, a = run(players(), batch(), steps=5)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    with use_rules(parse_rules(rules)):
        eight, b = run(players(), batch(), steps=5, mesh=mesh)
    kernel = eight.params["model"]["first.kernel"]
    moment = jax.tree.leaves(eight.optimizer["model"][1].inner_states["g0"].inner_state[0].mu)
    assert kernel.sharding.num_devices == 8 and not kernel.sharding.is_fully_replicated
    assert any(not m.sharding.is_fully_replicated for m in moment)
    chex.assert_trees_all_close(
        jax.device_get(one.params), jax.device_get(eight.params), rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_close(jax.device_get(a.terms), jax.device_get(b.terms), rtol=1e-5)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counter():
    data = batch()
    broken = {"x": data["x"].at[0, 0, 0].set(jnp.nan)}
    who = players(ema_decay=0.9)
    before, _ = state_and_frozen(who, single_device_mesh())
    after, report = run(who, broken)
    assert not report.applied
    assert int(after.step) == 1
    chex.assert_trees_all_equal(after.params, before.params)
    chex.assert_trees_all_equal(after.optimizer, before.optimizer)
    chex.assert_trees_all_equal((after.ema, after.carried), (before.ema, before.carried))


def test_the_average_follows_the_weights():
    who = players(ema_decay=0.9)
    before, _ = state_and_frozen(who, single_device_mesh())
    after, _ = run(who, batch())
    kept = averaging_decay(0.9, jnp.asarray(0))
    expected = jax.tree.map(
        lambda a, b: kept * a + (1 - kept) * b, before.params["model"], after.params["model"]
    )
    chex.assert_trees_all_close(after.ema["model"], expected, rtol=1e-6)
    assert "critic" not in after.ema


def test_a_young_average_does_not_hold_the_first_weights():
    kept = np.asarray(averaging_decay(0.998, jnp.arange(6000)))
    assert kept[:2] == pytest.approx([2 / 11, 3 / 12])
    assert (np.diff(kept) >= 0).all() and kept[-1] == pytest.approx(0.998)
    assert np.prod(kept[:100]) < 1e-9


def test_bfloat16_compute_keeps_float32_masters():
    state, report = run(players(), batch(), dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    exact, _ = run(players(), batch())
    assert not np.array_equal(state.params["model"]["first.kernel"], exact.params["model"]["first.kernel"])


def test_schedules_warm_up_and_come_down():
    rate = WarmupCosine(learning_rate=1e-4, warmup_steps=10, end=1e-5).build(110)
    np.testing.assert_allclose([rate(0), rate(9), rate(60), rate(110)], [1e-5, 1e-4, 5.5e-5, 1e-5], rtol=1e-4)
    flat = WarmupConstant(learning_rate=1.0, warmup_steps=4).build(10)
    np.testing.assert_allclose([flat(i) for i in range(6)], [0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: WarmupCosine(learning_rate=1.0, warmup_steps=10).build(10),
            "steps 10 must exceed warmup_steps",
        ),
        (lambda: WarmupCosine(learning_rate=0.0, warmup_steps=1), "learning_rate 0.0"),
        (
            lambda: assign_groups(
                ["a.kernel"],
                (Group(name="x", patterns=("b",), schedule=WarmupConstant(learning_rate=1.0)),),
            ),
            "group 'x': no parameter matches",
        ),
    ],
)
def test_bad_configuration_is_named(make, words):
    with pytest.raises(InputError, match=words):
        make()
