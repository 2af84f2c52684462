"""Low-rank adapters: which kernels have one, what is trained, and what runs."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, kernel_split, named_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.joint import MODEL, changed_names, joint_player
from mammoth_jax.training.lora import A, Adapters, AdapterWeights, B, LoRA
from mammoth_jax.training.optimizer import AdamWConfig, Group, assign_groups, build_optimizer
from mammoth_jax.training.schedules import WarmupConstant
from mammoth_jax.training.state import abstract_state, create_state
from mammoth_jax.training.step import Frozen, build_step
from tests.tiny_model import tiny_config
from tests.training.tiny_joint import stage, write_data
from tests.training.toy import WIDTH, LayeredNet, squares
from tests.training.toy import player as toy_player


def adapters_of(module, **options):
    parameters = named_parameters(module)
    return Adapters.of(LoRA(**{"rank": 3, "alpha": 6.0} | options), parameters, set(parameters))


def random_factors(adapters, seed=0):
    rng = np.random.default_rng(seed)
    return {
        n: jnp.asarray(0.3 * rng.standard_normal(p.shape), jnp.float32) for n, p in adapters.declared.items()
    }


def applied(net, factors, scale, x):
    """The network with each map's own output and beside it what passes through its two factors."""

    def change(name, layer, x, inputs):
        a, b = (factors[name + s] if layer is None else factors[name + s][layer] for s in (A, B))
        narrow = jnp.tensordot(x, a, axes=inputs)
        return scale * jnp.tensordot(narrow, b, axes=1)

    for i in range(3):
        block = jax.tree.map(lambda p, i=i: p[i], net.layers)
        inner = jnp.tanh(block.split(x) + change("layers.split.kernel", i, x, 1))
        x = x + block.join(inner) + change("layers.join.kernel", i, inner, 2)
    return net.last(x) + change("last.kernel", None, x, 1)


def test_merged_kernels_compute_what_applied_factors_do():
    mesh = single_device_mesh()
    net = initialize(LayeredNet, 0, mesh)
    adapters = adapters_of(net)
    assert adapters.kernels == ("last.kernel", "layers.join.kernel", "layers.split.kernel")
    factors = random_factors(adapters)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((5, WIDTH)), jnp.float32)
    base = {n: p[...] for n, p in named_parameters(net).items()}
    player = a_player(net, adapters)
    merged = player.assemble(factors, base, jnp.float32)
    expected = applied(net, factors, 2.0, x)
    np.testing.assert_allclose(merged(x), expected, rtol=1e-5, atol=1e-5)
    assert float(jnp.max(jnp.abs(expected - net(x)))) > 0.1
    stored = AdapterWeights(factors, 3, 6.0).merged(base)
    chex.assert_trees_all_close(stored, {n: p[...] for n, p in named_parameters(merged).items()}, rtol=1e-6)


@pytest.mark.parametrize("axes", [{}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_merging_gives_the_kernels_that_change_away_and_nothing_else(axes):
    net = initialize(LayeredNet, 0, make_mesh(axes) if axes else single_device_mesh())
    adapters = adapters_of(net, patterns=("split",))
    base = {n: p[...] for n, p in named_parameters(net).items()}
    stored = AdapterWeights(random_factors(adapters), 3, 6.0).merged(base)
    assert stored.keys() == base.keys()
    assert {n for n, x in base.items() if x.is_deleted()} == {"layers.split.kernel"}
    assert all(stored[n] is x for n, x in base.items() if n != "layers.split.kernel")
    before, after = base["layers.split.kernel"], stored["layers.split.kernel"]
    assert (after.sharding, after.dtype, after.shape) == (before.sharding, before.dtype, before.shape)


def a_player(net, adapters):
    labels = dict.fromkeys(adapters.declared, "g0")
    return dataclasses.replace(
        toy_player(squares),
        template=abstract(type(net)),
        names=frozenset(labels),
        adapters=adapters,
        optimizer=build_optimizer(TOY_OPTIMIZER, labels, 100, {}),
    )


TOY_OPTIMIZER = AdamWConfig(groups=(Group(name="g0", schedule=WarmupConstant(learning_rate=1e-2)),))


@pytest.mark.parametrize("axes", [{}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_adapters_alone_are_trained_from_the_base_on(axes):
    mesh = make_mesh(axes) if axes else single_device_mesh()
    with jax.set_mesh(mesh):
        net = initialize(LayeredNet, 0, mesh)
        adapters = adapters_of(net, patterns=("split", "^last"))
        assert adapters.kernels == ("last.kernel", "layers.split.kernel")
        player = a_player(net, adapters)
        base = player.rest(net)
        assert base.keys() == named_parameters(net).keys()
        start = adapters.start(0, mesh)
        chex.assert_trees_all_equal(
            {n: p[...] for n, p in named_parameters(player.assemble(start, base, jnp.float32)).items()}, base
        )
        state = create_state({"model": player}, {"model": start}, None, mesh)
        assert state.params["model"].keys() == {n + s for n in adapters.kernels for s in (A, B)}
        like = abstract_state({"model": player}, None, mesh)
        assert jax.tree.map(lambda x: (x.shape, x.sharding), like.params) == jax.tree.map(
            lambda x: (x.shape, x.sharding), state.params
        )
        size = sum(x.size for x in state.params["model"].values())
        assert sum(x.size for x in jax.tree.leaves(state.optimizer) if x.ndim) == 2 * size
        step = jax.jit(build_step({"model": player}))
        x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 8, WIDTH)), jnp.float32)
        frozen = Frozen({}, {"model": base})
        first, before = step(state, frozen, {"x": x}, jax.random.key(0))
        for name in adapters.kernels:  # nothing reaches A while B is zero
            np.testing.assert_array_equal(first.params["model"][name + A], start[name + A])
            assert float(jnp.max(jnp.abs(first.params["model"][name + B]))) > 0
        second, after = step(first, frozen, {"x": x}, jax.random.key(0))
    assert float(after.terms["error"].total) < float(before.terms["error"].total)
    assert not np.array_equal(second.params["model"]["last.kernel" + A], start["last.kernel" + A])


def test_every_linear_map_of_the_model_can_be_adapted_and_nothing_else():
    parts = frozenset(("text_decoder", "generation_experts", "vision_tower", "dit", "refiner"))
    splits = {
        name: kernel_split(p)
        for name, p in named_parameters(abstract(lambda: Mammoth(tiny_config(), parts=parts))).items()
    }
    assert {n for n, split in splits.items() if split is not None} == {
        n for n in splits if n.endswith(".kernel")
    }
    assert splits["decoder.head.kernel"] == (0, 1)
    assert splits["dit.layers.attention.out.kernel"] == (1, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), count=1)


def test_a_stage_with_adapters_trains_those_of_its_groups(data):
    config = stage(data, lora={"patterns": [r"\.ffn\."], "rank": 2, "alpha": 4})
    player = joint_player(config)
    state = abstract_state({MODEL: player}, {}, single_device_mesh())
    names = state.params[MODEL].keys()
    assert names == {n + s for n in changed_names(player) for s in (A, B)}
    assert all(".ffn." in name for name in names)
    assert {name.split(".")[0] for name in names} == {"decoder", "dit", "refiner"}
    assert all(".ffn.1." in name for name in names if name.startswith("decoder"))  # generation experts
    size = sum(x.size for x in state.params[MODEL].values())
    assert sum(x.size for x in jax.tree.leaves(state.optimizer) if x.ndim) == 2 * size
    whole = sum(p.size for n, p in named_parameters(player.template).items() if n in changed_names(player))
    assert size < whole / 2
    assert set(assign_groups(changed_names(player), config.optimizer.groups).values()) == {
        "generation",
        "dit",
    }


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank": 0}, "rank 0"),
        ({"patterns": []}, "one or more regular expressions"),
        ({"patterns": ["("]}, "not a regular expression"),
        ({"patterns": [r"\.ffn\.", "norm"]}, "no kernel of the optimizer's groups matches 'norm'"),
        ({"patterns": ["^dit"]}, "optimizer group 'generation': no kernel of it has an adapter"),
    ],
)
def test_what_cannot_be_adapted_is_named(data, lora, words):
    with pytest.raises(InputError, match=words):
        joint_player(stage(data, lora=lora))
