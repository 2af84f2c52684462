"""Each query of the alignment module is given one visual token of its own picture, and is asked to add it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.objectives.alignment import alignment_losses, query_places
from mammoth_jax.objectives.joint_config import JointObjectiveConfig

# two samples with tokens at [1, 2, 4] and [5, 7], a third without any
SAMPLE = jnp.asarray([[0, 1, 1, 0, 1, 2, 0, 2]])


@pytest.mark.parametrize(
    ("queries", "expected"),
    [(1, [2, 7]), (2, [1, 4, 5, 7]), (3, [1, 2, 4, 5, 7, 7]), (6, [1, 1, 2, 2, 4, 4, 5, 5, 5, 7, 7, 7])],
)
def test_queries_are_spread_evenly_over_the_tokens_of_their_own_sample(queries, expected):
    places, number = query_places(SAMPLE, queries, 3)
    assert places[0, : 2 * queries].tolist() == expected
    assert places.shape == (1, 3 * queries)
    assert number.tolist() == [[3, 2, 0]]


def losses(added, source):
    return alignment_losses(added, source, SAMPLE, jnp.ones(SAMPLE.shape, bool).at[0, 2].set(False), 3)


def test_a_sample_whose_queries_add_their_tokens_costs_nothing():
    source = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 4)), jnp.float32)
    # token 2 is no code: the first sample's are 1 and 4
    added = source[:, jnp.asarray([1, 4, 5, 7, 0, 0])]
    exact = losses(added, source)
    np.testing.assert_allclose(exact.losses, [[0, 0, 0]], atol=1e-12)
    np.testing.assert_array_equal(exact.weights, [[1, 1, 0]])
    np.testing.assert_allclose(losses(added + 2.0, source).losses, [[4, 4, 0]], rtol=1e-6)


def test_what_is_read_is_not_moved_towards_the_queries():
    source = jnp.ones((1, 8, 4))
    added = jnp.zeros((1, 6, 4))
    of_added, of_source = jax.grad(lambda a, s: losses(a, s).sum().total, argnums=(0, 1))(added, source)
    assert np.all(np.asarray(of_source) == 0)
    assert np.all(np.asarray(of_added)[0, :4] < 0) and np.all(np.asarray(of_added)[0, 4:] == 0)


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match="alignment -1"):
        JointObjectiveConfig(alignment=-1)
