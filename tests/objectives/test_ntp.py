"""Next-token losses over the joint vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.objectives.ntp import label_columns, next_token_losses

SIZES = {"vocab_size": 5, "gen_vocab_start_index": 8}


def test_generation_ids_map_to_the_columns_after_the_text():
    assert label_columns(jnp.array([[0, 4, 8, 10]]), **SIZES).tolist() == [[0, 4, 5, 7]]


def test_each_position_is_scored_against_the_next_label():
    logits = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32)
    labels = np.array([[1, 9, -100, 2], [-100, -100, 3, 10]])
    terms = next_token_losses(jnp.asarray(logits), jnp.asarray(labels), **SIZES)
    log = np.asarray(jax.nn.log_softmax(logits))
    assert np.asarray(terms.weights).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    wanted = [-log[0, 0, 6], -log[0, 2, 2], -log[1, 1, 3], -log[1, 2, 7]]
    assert np.allclose(np.asarray(terms.losses)[np.asarray(terms.weights) > 0], wanted, atol=1e-6)
    assert np.isclose(float(terms.sum().mean), np.mean(wanted), atol=1e-6)


def test_a_batch_without_labels_has_weight_zero_and_finite_gradients():
    labels = jnp.full((1, 3), -100)
    grad = jax.grad(lambda x: next_token_losses(x, labels, **SIZES).sum().total)(jnp.ones((1, 3, 8)))
    assert not np.asarray(grad).any()
