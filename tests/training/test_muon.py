"""Muon: which parameters it moves, by how much, and on a mesh."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.training.muon import Muon, stacked_matrices
from mammoth_jax.training.optimizer import AdamWConfig, Group, build_optimizer
from mammoth_jax.training.schedules import WarmupConstant
from mammoth_jax.training.state import create_state
from mammoth_jax.training.step import Frozen, build_step
from tests.training.toy import WIDTH, LayeredNet, squares
from tests.training.toy import player as toy_player

RATE, DECAY = 1e-2, 0.1


STACKED = {"layers.split.kernel", "layers.join.kernel"}


def config(muon):
    group = Group(name="all", schedule=WarmupConstant(learning_rate=RATE))
    return AdamWConfig(groups=(group,), weight_decay=DECAY, clip_norm=None, muon=muon)


def optimizer_of(net, muon):
    parameters = named_parameters(net)
    return build_optimizer(config(muon), dict.fromkeys(parameters, "all"), 100, stacked_matrices(parameters))


def first_update(muon):
    net = initialize(LayeredNet, 0, single_device_mesh())
    values = {n: p[...] for n, p in named_parameters(net).items()}
    rng = np.random.default_rng(1)
    gradients = {n: jnp.asarray(rng.standard_normal(x.shape), jnp.float32) for n, x in values.items()}
    optimizer = optimizer_of(net, muon)
    updates, _ = optimizer.update(gradients, optimizer.init(values), values)
    return values, gradients, updates


def test_kernels_in_stacks_move_along_the_orthogonal_factor_of_their_momentum():
    values, gradients, updates = first_update(Muon(rms=0.2))
    for name, inputs in (("layers.split.kernel", WIDTH), ("layers.join.kernel", 12)):
        step = np.asarray(updates[name] + RATE * DECAY * values[name]).reshape(3, inputs, -1)
        for layer, gradient in zip(step, np.asarray(gradients[name]).reshape(step.shape), strict=True):
            u, _, v = np.linalg.svd(gradient, full_matrices=False)
            turned = -u.T @ layer @ v.T / (RATE * 0.2 * np.sqrt(max(layer.shape)))  # the identity, roughly
            values_on_it = np.diagonal(turned)
            assert (values_on_it > 0.6).all() and (values_on_it < 1.3).all()
            np.testing.assert_allclose(turned - np.diag(values_on_it), 0, atol=1e-4)


def test_everything_else_moves_as_without_it():
    _, _, with_muon = first_update(Muon())
    _, _, without = first_update(None)
    moved = {n for n in without if not np.array_equal(with_muon[n], without[n])}
    assert moved == STACKED


def test_one_device_and_eight_take_the_same_steps():
    def run(mesh):
        net = initialize(LayeredNet, 0, mesh)
        player = dataclasses.replace(
            toy_player(squares),
            template=abstract(LayeredNet),
            names=frozenset(named_parameters(net)),
            optimizer=optimizer_of(abstract(LayeredNet), Muon()),
        )
        with jax.set_mesh(mesh):
            state = create_state({"model": player}, {"model": net}, None, mesh)
            step = jax.jit(build_step({"model": player}))
            x = np.random.default_rng(1).standard_normal((1, 8, WIDTH)).astype(np.float32)
            for _ in range(5):
                state, _ = step(state, Frozen({}, {"model": player.rest(net)}), {"x": x}, jax.random.key(0))
        return state

    one, eight = run(single_device_mesh()), run(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    moments = [
        x for x in jax.tree.leaves(eight.optimizer["model"]) if x.ndim and not x.sharding.is_fully_replicated
    ]
    assert {x.shape for x in moments} >= {(3, WIDTH, 2, 6), (3, 2, 6, WIDTH)}
    chex.assert_trees_all_close(
        jax.device_get(one.params), jax.device_get(eight.params), rtol=1e-4, atol=1e-5
    )


def test_moments_are_one_array_a_kernel():
    parameters = named_parameters(abstract(LayeredNet))
    state = jax.eval_shape(optimizer_of(abstract(LayeredNet), Muon()).init, dict(parameters))
    moments = [x for x in jax.tree.leaves(state) if isinstance(x, jax.ShapeDtypeStruct) and x.ndim > 1]
    held = sum(int(np.prod(parameters[n].shape)) for n in STACKED)
    others = sum(int(np.prod(p.shape)) for n, p in parameters.items() if n not in STACKED and p.ndim > 1)
    assert sum(int(np.prod(x.shape)) for x in moments) == held + 2 * others


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Muon(momentum=1.0), r"optimizer.muon: momentum 1.0, rms 0.2: expected 0 <= momentum < 1"),
        (lambda: Muon(rms=0.0), "rms 0.0"),
        (
            lambda: build_optimizer(config(Muon()), {"last.kernel": "all"}, 100, stacked_matrices({})),
            "no kernel of a stack of layers is trained here",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_optax_still_takes_the_axes_from_us():
    """A kernel with heads: orthogonal as [inputs, heads * width], not head by head."""
    matrices = stacked_matrices(named_parameters(abstract(LayeredNet)))
    assert matrices["layers.split.kernel"] == optax.contrib.MuonDimensionNumbers((1,), (2, 3))
    assert matrices["layers.join.kernel"] == optax.contrib.MuonDimensionNumbers((1, 2), (3,))
