"""Logical axis names to shardings: collisions, widths that do not divide, and meshes from text."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
from mammoth_jax.core.sharding import (
    ShardingRules,
    constrain,
    constrain_weight,
    current_rules,
    named_sharding,
    parse_rules,
    use_rules,
)

SIZES = {"data": 1, "fsdp": 4, "tensor": 2}
RULES = ShardingRules()


def test_mesh_text_names_axes_and_the_rest_is_one():
    assert parse_mesh("fsdp=4, tensor=2") == SIZES
    assert parse_mesh("") == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("text", ["model=2", "fsdp=0", "fsdp=x", "fsdp", "fsdp=2,fsdp=2"])
def test_malformed_mesh_text_is_bad_input(text):
    with pytest.raises(InputError):
        parse_mesh(text)


def test_a_mesh_needs_its_devices():
    assert dict(make_mesh(SIZES).shape) == SIZES
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    assert single_device_mesh().size == 1
    with pytest.raises(InputError, match="needs 16 devices, there are 8"):
        make_mesh({"data": 2, "fsdp": 4, "tensor": 2})


def test_names_map_to_mesh_axes():
    assert RULES.spec(("embed", "mlp"), (64, 128), SIZES) == P("fsdp", "tensor")
    assert RULES.spec(("layers", "embed", None), (3, 64, 5), SIZES) == P(None, "fsdp", None)
    assert RULES.spec(("batch", None), (8, 3), SIZES, move=False) == P("fsdp", None)
    assert RULES.spec(("batch", None), (8, 3), {**SIZES, "data": 2}, move=False) == P(("data", "fsdp"), None)


def test_an_axis_that_does_not_divide_moves_to_the_largest_that_does():
    assert RULES.spec(("embed", "heads", None), (64, 7, 120), SIZES) == P("fsdp", None, "tensor")
    assert RULES.spec(("layers", "embed"), (12, 63), SIZES) == P("fsdp", None)
    assert RULES.spec(("embed", "mlp"), (63, 64), SIZES) == P(None, ("tensor", "fsdp"))


def test_an_axis_without_a_place_is_left_out():
    assert RULES.spec(("embed", "mlp"), (63, 61), SIZES) == P(None, None)
    assert RULES.spec(("batch", None), (6, 64), SIZES, move=False) == P(None, None)


def test_two_dimensions_on_one_mesh_axis_collide():
    with pytest.raises(InputError, match="colliding axes"):
        RULES.spec(("mlp", "heads"), (8, 8), SIZES)


def test_unknown_names_and_wrong_ranks_are_bad_input():
    with pytest.raises(InputError, match="has no sharding rule"):
        RULES.spec(("wings",), (8,), SIZES)
    with pytest.raises(InputError, match="do not describe"):
        RULES.spec(("embed",), (8, 8), SIZES)
    with pytest.raises(InputError, match="is not a mesh axis"):
        ShardingRules(embed=("model",))


def test_weights_are_cut_as_the_spec_says():
    mesh = make_mesh(SIZES)
    x = jax.device_put(jax.numpy.zeros((8, 6)), named_sharding(mesh, ("embed", "mlp"), (8, 6)))
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 3)}


def test_constraints_do_nothing_without_a_mesh():
    x = jax.numpy.zeros((8, 6))
    assert constrain(x, "batch", None) is x


def test_rules_from_text_replace_the_named_ones():
    assert parse_rules("") == ShardingRules()
    rules = parse_rules("length=tensor, embed=fsdp+data, mlp=")
    assert rules == ShardingRules(length=("tensor",), embed=("fsdp", "data"), mlp=())


@pytest.mark.parametrize(
    "text",
    ["wings=fsdp", "length", "length=model", "mlp=fsdp,mlp=tensor", "mlp=tensor+data", "length=data"],
)
def test_malformed_rules_are_bad_input(text):
    with pytest.raises(InputError):
        parse_rules(text)


def test_axes_of_the_state_divide_weights_that_are_held_and_not_those_in_use():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    axes, shape = ("layers", "embed", "mlp"), (3, 8, 6)
    with use_rules(parse_rules("state=data")), jax.set_mesh(mesh):
        held = named_sharding(mesh, axes, shape)
        used = jax.jit(lambda x: constrain_weight(x, *axes))(jax.device_put(jax.numpy.zeros(shape), held))
    assert held.spec == P(None, ("fsdp", "data"), "tensor")
    assert used.sharding.shard_shape(shape) == (3, 4, 3)
    assert parse_rules("state=data").spec(("embed",), (8,), dict(mesh.shape), move=False) == P("fsdp")
    assert parse_rules("state=data").spec(("embed", "mlp"), (2, 12), dict(mesh.shape)) == P(
        "fsdp", ("tensor", "data")
    )


def test_rules_hold_for_weights_and_activations_inside_their_scope():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    with use_rules(parse_rules("length=tensor,embed=fsdp+data")), jax.set_mesh(mesh):
        x = jax.jit(lambda x: constrain(x, "batch", "length", None))(jax.numpy.zeros((4, 6, 2)))
        assert named_sharding(mesh, ("embed",), (8,)).spec == P(("fsdp", "data"))
    assert x.sharding.shard_shape(x.shape) == (1, 3, 2)
    assert current_rules() == ShardingRules()
    assert named_sharding(mesh, ("embed",), (8,)).spec == P("fsdp")
