"""Next-token losses over the joint vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.objectives.ntp import label_columns, next_token_losses, next_token_losses_from_hidden

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


@pytest.mark.parametrize("gen_columns", [4, 0])
def test_losses_from_hidden_states_are_those_of_the_logits(gen_columns):
    rng = np.random.default_rng(1)
    hidden, head, gen_head = (
        jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((3, 7, 6), (6, 5), (6, gen_columns))
    )
    labels = rng.integers(0, 5, (3, 7)) + np.where(rng.random((3, 7)) < 0.5, 3 + 5, 0) * (gen_columns > 0)
    labels = jnp.asarray(np.where(rng.random((3, 7)) < 0.2, -100, np.minimum(labels, 11)))
    heads = (head, gen_head if gen_columns else None)
    scale = jnp.asarray(rng.random((3, 7)), jnp.float32)

    def from_logits(hidden, head, gen_head):
        kernels = [k for k in (head, gen_head) if k is not None]
        terms = next_token_losses(jnp.concatenate([hidden @ k for k in kernels], -1), labels, **SIZES)
        return jnp.sum(terms.losses * scale), terms

    def from_hidden(hidden, head, gen_head):
        terms = next_token_losses_from_hidden(hidden, head, gen_head, labels, **SIZES)
        return jnp.sum(terms.losses * scale), terms

    inputs = (0, 1, 2) if gen_columns else (0, 1)
    wanted, got = (
        jax.jit(jax.grad(f, argnums=inputs, has_aux=True))(hidden, *heads) for f in (from_logits, from_hidden)
    )
    assert 0 < wanted[1].weights.sum() < 18 and (labels[:, 1:] >= 8).any() == (gen_columns > 0)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.abs(a - b).max() <= 1e-6 * np.abs(b).max()
