"""Our grouped product for TPU, interpreted: equals the reference, reads stacks by layer, and has no gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.routed_ffn import (
    Both,
    ExpertKernels,
    Megablox,
    PallasTPU,
    Ragged,
    choice,
    routed_ffn,
    use_routed_ffn,
)
from mammoth_jax.ops.routed_ffn.per_device import held_as_applied

SMALL = PallasTPU((16, 128, 128))
LAYERS, B, S = 3, 2, 20
SIZES = (300, 260)  # three blocks and a rest of each dimension


def experts_in_stacks(num_experts: int, sizes: tuple[int, int], layer: int = 1) -> list[ExpertKernels]:
    rng = np.random.default_rng(0)
    d, f = sizes
    draw = lambda *shape: jnp.asarray(rng.standard_normal((LAYERS, *shape), np.float32) / 16)  # noqa: E731
    at = jnp.asarray(layer, jnp.int32)
    return [ExpertKernels(draw(d, f), draw(d, f), draw(f, d), at) for _ in range(num_experts)]


def tokens(rows: int, length: int, d: int):
    return jnp.asarray(np.random.default_rng(1).standard_normal((rows, length, d), np.float32))


def generation_tokens(count: int, rows: int, length: int):
    """Expert 1 at ``count`` of all tokens, spread over the rows."""
    expert = np.zeros(rows * length, np.int32)
    expert[np.random.default_rng(count).permutation(rows * length)[:count]] = 1
    return jnp.asarray(expert.reshape(rows, length))


@functools.partial(jax.jit, static_argnames="implementation")
def apply(implementation, x, experts, expert, weights=None):
    with use_routed_ffn(implementation):
        return routed_ffn(x, experts, expert, weights)


def assert_close(got, wanted, tolerance=3e-6):
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    got, wanted = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
    assert np.abs(got - wanted).max() <= tolerance * (1 + np.abs(wanted).max())


@pytest.mark.parametrize("count", [0, 1, 17, B * S - 1, B * S])
def test_equals_the_reference_whatever_the_share_of_generation_tokens(count):
    arguments = tokens(B, S, SIZES[0]), experts_in_stacks(2, SIZES), generation_tokens(count, B, S)
    assert_close(apply(SMALL, *arguments), apply(Both(), *arguments))


@pytest.mark.parametrize(
    ("dtype", "tolerance", "sizes", "counts"),
    [
        (jnp.float32, 3e-6, (600, 640), (0, 1, 400, 519, 520)),
        (jnp.bfloat16, 0.02, (1100, 1160), (400,)),
    ],
    ids=["float32", "bfloat16"],
)
def test_equals_the_reference_with_the_blocks_that_are_compiled(dtype, tolerance, sizes, counts):
    length = 520  # a rest of rows, and two blocks of each dimension
    x, experts = tokens(1, length, sizes[0]).astype(dtype), experts_in_stacks(2, sizes)
    experts = [jax.tree.map(lambda a: a.astype(dtype) if a.ndim else a, e) for e in experts]
    for count in counts:
        arguments = x, experts, generation_tokens(count, 1, length)
        assert_close(apply(PallasTPU(), *arguments), apply(Both(), *arguments), tolerance)


def test_three_experts_and_two_of_them_a_token():
    rng = np.random.default_rng(3)
    expert = jnp.asarray(rng.integers(0, 3, (B, S, 2)), jnp.int32)
    weights = jnp.asarray(rng.random((B, S, 2)), jnp.float32)
    arguments = tokens(B, S, SIZES[0]), experts_in_stacks(3, SIZES), expert, weights
    assert_close(apply(SMALL, *arguments), apply(Both(), *arguments))
    middle_alone = (*arguments[:2], jnp.ones_like(expert), weights)
    assert_close(apply(SMALL, *middle_alone), apply(Both(), *middle_alone))


def test_float32_kernels_serve_bfloat16_tokens():
    x = tokens(B, S, SIZES[0]).astype(jnp.bfloat16)
    arguments = x, experts_in_stacks(2, SIZES), generation_tokens(17, B, S)
    assert_close(apply(SMALL, *arguments), apply(Both(), *arguments), 0.02)


def test_the_layer_is_a_value_of_one_program_and_kernels_without_one_are_their_own():
    x, expert = tokens(B, S, SIZES[0]), generation_tokens(17, B, S)
    results = []
    for layer in range(LAYERS):
        experts = experts_in_stacks(2, SIZES, layer)
        got = apply(SMALL, x, experts, expert)
        assert_close(got, apply(Both(), x, experts, expert))
        assert np.array_equal(got, apply(SMALL, x, [e.own() for e in experts], expert))
        results.append(got)
    assert not np.allclose(results[0], results[2], atol=1e-3)


@pytest.mark.parametrize(
    ("mesh", "in_place"),
    [({"data": 4, "tensor": 2}, True), ({"data": 2, "fsdp": 2, "tensor": 2}, False)],
)
def test_eight_devices_give_what_one_gives(mesh, in_place):
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1} | mesh)
    sizes = (96, 256)
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    x, experts, expert = tokens(4, S, sizes[0]), experts_in_stacks(2, sizes), generation_tokens(17, 4, S)
    wanted = apply(Both(), x, experts, expert)
    wide, tall = (None, "fsdp", "tensor"), (None, "tensor", "fsdp")
    placed = [
        ExpertKernels(place(e.gate, *wide), place(e.up, *wide), place(e.down, *tall), place(e.layer))
        for e in experts
    ]
    batch = ("data", "fsdp")
    with jax.set_mesh(mesh):
        assert held_as_applied(placed) == in_place
        assert_close(apply(SMALL, place(x, batch), placed, place(expert, batch)), wanted)


def test_a_width_that_the_mesh_does_not_divide_is_not_read_in_place():
    experts = experts_in_stacks(2, (96, 255))
    with jax.set_mesh(make_mesh({"data": 4, "fsdp": 1, "tensor": 2})):
        assert not held_as_applied(experts)


def test_gradients_are_refused_by_name():
    x, expert = tokens(B, S, SIZES[0]), generation_tokens(17, B, S)
    with pytest.raises(InputError, match="'pallas_tpu' has no gradients: train with"):
        jax.grad(lambda x: jnp.sum(apply(SMALL, x, experts_in_stacks(2, SIZES), expert)))(x)


def test_the_table_gives_it_kernels_in_stacks_alone(monkeypatch):
    monkeypatch.setattr(choice, "target_platform", lambda: "tpu")
    assert choice.chosen_implementation(256, in_stacks=True) == PallasTPU()
    assert choice.chosen_implementation(256) in (Megablox(), Ragged())
    assert choice.chosen_implementation(255, in_stacks=True) == Both()
