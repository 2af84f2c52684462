"""Dead codes: who counts as dead, what replaces them, and that devices and order do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.models.mammothtok import MammothTokConfig, Quantizer
from mammoth_jax.models.mammothtok.revival import CodeUsage, Revival, count_codes, revive_codes

KEY = jax.random.key(3)


def vectors(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_a_code_is_replaced_after_exactly_so_many_idle_steps_and_not_before():
    table, z, usage = vectors(4, 3), vectors(2, 3, 3, seed=1), CodeUsage.start(4)
    ids = jnp.asarray([[0, 1, 1], [3, 3, 0]])
    for step in (1, 2, 3):
        revived = revive_codes(Revival(idle_steps=3), usage, table, ids, z, KEY)
        usage = revived.usage
        assert revived.replaced.tolist() == [False, False, step == 3, False]
    np.testing.assert_array_equal(revived.codebook[jnp.asarray([0, 1, 3])], table[jnp.asarray([0, 1, 3])])
    assert (np.abs(z.reshape(-1, 3) - revived.codebook[2]).max(axis=1) == 0).any()
    assert usage.idle.tolist() == [0, 0, 0, 0]


def test_dead_codes_get_different_vectors_and_wait_when_there_are_too_few():
    z = vectors(3, 2, seed=1)
    usage = CodeUsage(jnp.zeros(6), jnp.full(6, 9, jnp.int32))
    revived = revive_codes(Revival(idle_steps=5), usage, jnp.zeros((6, 2)), jnp.asarray([0, 0, 0]), z, KEY)
    assert revived.replaced.tolist() == [False, True, True, True, False, False]
    placed = np.asarray(revived.codebook)[1:4]
    np.testing.assert_array_equal(np.sort(placed, axis=0), np.sort(z, axis=0))
    assert revived.usage.idle.tolist() == [0, 0, 0, 0, 10, 10]


def test_a_revived_code_is_chosen_by_the_vector_that_it_was_taken_from():
    config = MammothTokConfig(codebook_size=8, code_dim=4)
    quantizer = initialize(lambda: Quantizer(config), 0, single_device_mesh())
    quantized = quantizer(7 * vectors(16, 4, seed=2))
    usage = CodeUsage(jnp.zeros(8), jnp.full(8, 9, jnp.int32))
    table = quantizer.codebook[...]
    revived = revive_codes(Revival(idle_steps=1), usage, table, quantized.ids, quantized.z, KEY)
    assert revived.replaced.any() and not revived.replaced.all()
    lengths = np.linalg.norm(revived.codebook[revived.replaced], axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    quantizer.codebook[...] = revived.codebook
    chosen = set(np.asarray(quantizer.encode(quantized.z)).tolist())
    assert set(np.flatnonzero(revived.replaced).tolist()) <= chosen


def test_the_result_does_not_depend_on_the_number_of_devices():
    table, z, ids = vectors(16, 4), vectors(8, 2, 4, seed=1), jnp.arange(16).reshape(8, 2) % 5
    usage = CodeUsage(jnp.zeros(16), jnp.full(16, 9, jnp.int32))
    revive = jax.jit(
        lambda usage, table, ids, z: revive_codes(Revival(idle_steps=5), usage, table, ids, z, KEY)
    )
    alone = revive(usage, table, ids, z)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    spread = revive(usage, *jax.device_put((table, ids, z), rows))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_array_equal(a, b)


def test_average_counts_approach_the_counts_of_a_step():
    ids = jnp.asarray([2, 2, 0])
    np.testing.assert_array_equal(count_codes(ids, 4), [1, 0, 2, 0])
    usage = CodeUsage.start(4)
    for _ in range(60):
        usage = usage.update(ids, 0.8)
    np.testing.assert_allclose(usage.counts, [1, 0, 2, 0], rtol=1e-5)


@pytest.mark.parametrize("settings", [{"idle_steps": 0}, {"decay": 1.0}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Revival(**settings)
