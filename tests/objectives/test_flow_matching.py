import jax.numpy as jnp
import numpy as np

from mammoth_jax.objectives.flow_matching import flow_matching_losses


def test_padding_tokens_and_left_out_pictures_do_not_count():
    predicted = jnp.zeros((3, 4, 2))
    target = jnp.stack([jnp.full((4, 2), value) for value in (1.0, 2.0, 3.0)]).at[:, 2:].set(100.0)
    valid = jnp.array([[True, True, False, False]] * 3)
    term = flow_matching_losses(predicted, target, valid, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(term.losses, [1, 4, 9])
    assert float(term.sum().total) == 5 and float(term.sum().weight) == 2


def test_sums_of_halves_equal_the_whole():
    predicted = jnp.arange(24.0).reshape(4, 3, 2)
    target, valid = jnp.ones((4, 3, 2)), jnp.ones((4, 3), bool)
    whole = flow_matching_losses(predicted, target, valid)
    halves = [flow_matching_losses(predicted[i : i + 2], target[i : i + 2], valid[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(sum(h.sum().total for h in halves), whole.sum().total)
    np.testing.assert_allclose(sum(h.sum().weight for h in halves), whole.sum().weight)


def test_an_empty_picture_has_no_weight():
    term = flow_matching_losses(jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2), bool))
    assert float(term.sum().weight) == 0 and float(term.sum().total) == 0
