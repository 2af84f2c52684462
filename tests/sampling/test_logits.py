"""Guidance, penalty and filters against their definitions written out with numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.sampling.logits import SamplingSettings, choose, guide, process

ROWS, COLUMNS = 6, 40


def settings(**changes) -> SamplingSettings:
    values = {
        "guidance": 1.0,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
    } | changes
    return SamplingSettings(
        **{name: jnp.broadcast_to(jnp.asarray(value), (ROWS,)) for name, value in values.items()}
    )


def scores(seed: int = 0) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)).astype(np.float32)


NOTHING_SEEN = jnp.zeros((ROWS, COLUMNS), bool)
ALL_ALLOWED = jnp.ones(COLUMNS, bool)


def reference(row: np.ndarray, k: int, p: float) -> set[int]:
    """Columns that are left by top-k, then top-p, with at least three kept."""
    order = np.argsort(-row)[: max(k, 3) if k else len(row)]
    weights = np.exp(row[order] - row[order].max())
    above = np.cumsum(weights / weights.sum()) - weights / weights.sum()
    return {int(c) for i, c in enumerate(order) if p >= 1 or above[i] < p or i < 3}


def test_top_k_and_top_p_keep_what_their_definition_keeps_in_every_row():
    x, ks, ps = scores(), [0, 5, 1, 0, 12, 40], [1.0, 1.0, 1.0, 0.7, 0.5, 0.01]
    out = process(
        jnp.asarray(x), settings(top_k=jnp.array(ks), top_p=jnp.array(ps)), NOTHING_SEEN, ALL_ALLOWED
    )
    for row in range(ROWS):
        kept = set(np.flatnonzero(np.isfinite(np.asarray(out[row]))).tolist())
        assert kept == reference(x[row], ks[row], ps[row])


def test_rows_without_filters_are_untouched_and_the_range_is_enforced():
    x = scores()
    allowed = jnp.arange(COLUMNS) >= 30
    out = np.asarray(process(jnp.asarray(x), settings(), NOTHING_SEEN, allowed))
    assert np.array_equal(out[:, 30:], x[:, 30:]) and np.isneginf(out[:, :30]).all()


def test_repetition_penalty_lowers_seen_scores_of_either_sign():
    x = scores()
    seen = NOTHING_SEEN.at[:, 3].set(True)
    out = np.asarray(process(jnp.asarray(x), settings(repetition_penalty=2.0), seen, ALL_ALLOWED))
    assert np.allclose(out[:, 3], np.where(x[:, 3] < 0, x[:, 3] * 2, x[:, 3] / 2))
    assert np.array_equal(np.delete(out, 3, 1), np.delete(x, 3, 1))


def test_guidance_of_at_most_one_keeps_the_conditional_scores_exactly():
    c, u = scores(1), scores(2)
    scale = jnp.array([0.0, 1.0, 1.0, 2.0, 7.0, 1.5])
    out = np.asarray(guide(jnp.asarray(c), jnp.asarray(u), scale))
    assert np.array_equal(out[:3], c[:3])
    assert np.allclose(out[3:], u[3:] + np.asarray(scale)[3:, None] * (c - u)[3:], atol=1e-5)


def test_temperature_zero_takes_the_best_and_others_draw_in_proportion():
    x = jnp.tile(jnp.log(jnp.array([[0.6, 0.3, 0.1]])), (4000, 1))
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    drawn = np.asarray(choose(x, jnp.ones(4000), keys))
    assert np.allclose(np.bincount(drawn, minlength=3) / 4000, [0.6, 0.3, 0.1], atol=0.03)
    assert (np.asarray(choose(x, jnp.zeros(4000), keys)) == 0).all()
