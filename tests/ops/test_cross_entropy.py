"""Cross entropy in blocks of the vocabulary: equal to the plain one, and no array of all scores anywhere."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.core.sharding import ShardingRules, use_rules
from mammoth_jax.ops.cross_entropy import cross_entropy

D = 16
MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def inputs(n: int, *widths: int, dtype=jnp.float32):
    """Hidden states, heads, labels (some ignored, the last column of each head among them) and a weight a token."""
    rng = np.random.default_rng(n)
    labels = rng.integers(0, sum(widths), n)
    labels[: len(widths)] = np.cumsum(widths) - 1
    labels[len(widths) : len(widths) + 3] = -1
    hidden, *heads = (
        jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((n, D), *((D, w) for w in widths))
    )
    return (
        hidden,
        tuple(heads),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(rng.standard_normal(n), jnp.float32),
    )


def plain(hidden, heads, labels):
    scores = jnp.concatenate([jnp.dot(hidden, h, preferred_element_type=jnp.float32) for h in heads], axis=1)
    picked = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return jnp.where(labels >= 0, jax.nn.logsumexp(scores, axis=1) - picked, 0.0)


@functools.partial(jax.jit, static_argnums=0)
def losses_and_gradients(function, hidden, heads, labels, weights):
    losses, pull = jax.vjp(lambda hidden, heads: function(hidden, heads, labels), hidden, heads)
    return losses, *pull(weights)


def assert_close(got, wanted, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(
    ("widths", "block"),
    [((48, 16), 16), ((37, 11), 8), ((37, 11), 64), ((50,), 16), ((5, 40, 3), 7)],
    ids=["whole blocks", "remainders", "one block", "one head", "three heads"],
)
def test_equals_the_plain_one_in_value_and_gradients(widths, block):
    arguments = inputs(21, *widths)
    wanted = losses_and_gradients(plain, *arguments)
    assert_close(losses_and_gradients(functools.partial(cross_entropy, block=block), *arguments), wanted)
    assert_close(losses_and_gradients(cross_entropy, *arguments), wanted)


def test_ignored_tokens_have_no_loss_and_no_gradient():
    hidden, heads, labels, weights = inputs(21, 37, 11)
    hidden = hidden.at[np.asarray(labels) < 0].multiply(1e4)  # scores whose exponentials overflow
    losses, to_hidden, _ = losses_and_gradients(cross_entropy, hidden, heads, labels, weights)
    assert not np.asarray(losses)[np.asarray(labels) < 0].any()
    assert not np.asarray(to_hidden)[np.asarray(labels) < 0].any()
    nothing = losses_and_gradients(cross_entropy, hidden, heads, jnp.full_like(labels, -1), weights)
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(nothing))


def test_scores_far_from_zero_stay_finite():
    hidden, heads, labels, weights = inputs(21, 37, 11)
    got = losses_and_gradients(cross_entropy, hidden * 1e3, heads, labels, weights)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got))
    assert_close(got[0], plain(hidden * 1e3, heads, labels))


@pytest.mark.parametrize("block", [8, 32])
def test_padded_columns_count_for_nothing(block):
    hidden, heads, labels, weights = inputs(21, 37, 11)
    wanted = losses_and_gradients(plain, hidden, heads, labels, weights)
    padded = tuple(
        jnp.pad(h, ((0, 0), (0, extra)), constant_values=9.0) for h, extra in zip(heads, (27, 5), strict=True)
    )

    def function(hidden, heads, labels):
        return cross_entropy(hidden, heads, labels, num_columns=(37, 11), block=block)

    losses, to_hidden, to_heads = losses_and_gradients(function, hidden, padded, labels, weights)
    assert not to_heads[0][:, 37:].any() and not to_heads[1][:, 11:].any()
    assert_close((losses, to_hidden, (to_heads[0][:, :37], to_heads[1][:, :11])), wanted)


def test_bfloat16_inputs_accumulate_in_float32():
    arguments = inputs(64, 300, 60, dtype=jnp.bfloat16)
    exact = losses_and_gradients(
        plain, *(jax.tree.map(lambda x: x.astype(jnp.float32), arguments[:2])), *arguments[2:]
    )
    got = losses_and_gradients(functools.partial(cross_entropy, block=64), *arguments)
    assert got[0].dtype == jnp.float32 and got[1].dtype == got[2][0].dtype == jnp.bfloat16
    assert_close(got[0], exact[0], tolerance=1e-5)
    assert_close(got[1:], exact[1:], tolerance=0.01)


def test_float32_heads_under_bfloat16_states_get_float32_gradients():
    hidden, heads, labels, weights = inputs(64, 300, 60)
    got = losses_and_gradients(cross_entropy, hidden.astype(jnp.bfloat16), heads, labels, weights)
    assert got[2][0].dtype == jnp.float32
    assert_close(got[2], losses_and_gradients(plain, hidden, heads, labels, weights)[2], tolerance=0.02)


def on_mesh(hidden, heads, labels, weights):
    """The arguments as they lie on a mesh: tokens over data and fsdp, heads over fsdp and tensor."""
    mesh = make_mesh(MESH)
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    batch = ("data", "fsdp")
    return mesh, (
        place(hidden, batch),
        tuple(place(h, "fsdp", "tensor" if h.shape[1] % 2 == 0 else None) for h in heads),
        place(labels, batch),
        place(weights, batch),
    )


@pytest.mark.parametrize(
    "widths", [(38, 10), (38, 11), (64,)], ids=["even", "a head that does not divide", "one"]
)
def test_eight_devices_give_what_one_gives(widths):
    arguments = inputs(24, *widths)
    mesh, placed = on_mesh(*arguments)
    with jax.set_mesh(mesh):
        got = losses_and_gradients(functools.partial(cross_entropy, block=8), *placed)
    assert_close(got, losses_and_gradients(plain, *arguments), tolerance=2e-6)
    assert got[2][0].sharding.spec == PartitionSpec("fsdp", "tensor")


def test_heads_that_are_divided_over_both_axes_of_the_batch():
    arguments = inputs(24, 38, 11)
    mesh, placed = on_mesh(*arguments)
    with jax.set_mesh(mesh), use_rules(ShardingRules(embed=("fsdp", "data"))):
        got = losses_and_gradients(functools.partial(cross_entropy, block=8), *placed)
    assert_close(got, losses_and_gradients(plain, *arguments), tolerance=2e-6)
    assert got[2][0].sharding.spec == PartitionSpec(("fsdp", "data"), "tensor")


def test_padding_that_fills_a_device_counts_for_nothing():
    hidden, heads, labels, weights = inputs(24, 38, 10)
    padded = (jnp.pad(heads[0], ((0, 0), (0, 42)), constant_values=9.0), heads[1])
    mesh, placed = on_mesh(hidden, padded, labels, weights)
    with jax.set_mesh(mesh):
        losses, to_hidden, _ = losses_and_gradients(
            functools.partial(cross_entropy, num_columns=(38, 10), block=8), *placed
        )
    wanted = losses_and_gradients(plain, hidden, heads, labels, weights)
    assert_close((losses, to_hidden), wanted[:2], tolerance=2e-6)


def test_tokens_that_the_mesh_does_not_divide():
    arguments = inputs(21, 38, 10)
    with jax.set_mesh(make_mesh(MESH)):
        got = losses_and_gradients(functools.partial(cross_entropy, block=8), *arguments)
    assert_close(got, losses_and_gradients(plain, *arguments), tolerance=2e-6)


def largest_array(program: str) -> int:
    """Elements of the largest array of a compiled program."""
    return max(
        int(np.prod([int(x) for x in shape.split(",")]))
        for shape in re.findall(r"\w\d+\[([\d,]+)\]", program)
    )


def test_no_array_of_all_scores_exists_and_no_scores_cross_devices():
    n, width, block = 512, 4096, 64
    arguments = inputs(n, width, 1024)
    run = functools.partial(cross_entropy, block=block)
    one = losses_and_gradients.lower(run, *arguments).compile().as_text()
    assert largest_array(one) == D * width < n * width
    mesh, placed = on_mesh(*arguments)
    with jax.set_mesh(mesh):
        eight = losses_and_gradients.lower(run, *placed).compile().as_text()
    assert largest_array(eight) == (D // 2) * (width // 2)
    crossing = re.findall(
        r"= \(?(\w\d+\[[\d,]*\]).* (?:all-gather|all-reduce|reduce-scatter|all-to-all)", eight
    )
    assert crossing and max(map(largest_array, crossing)) == max(D * block, n // 4 * D)
