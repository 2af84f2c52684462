import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.align.config import QFormerConfig, choose_num_heads
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.dit.context import embed_condition
from tests.tiny_dit import WIDTH, condition, models, randomized


@pytest.mark.parametrize(
    ("width", "proposed", "heads"),
    [
        (2520, 19, 20),
        (2304, 18, 18),
        (2560, 20, 20),
        (3584, 28, 28),
        (4096, 32, 32),
        (96, 1, 1),
        (2520, 20, 20),
        (100, 3, 1),
        (60, 7, 1),
        (1000, 7, 8),
        (2048, 0, 16),
    ],
)
def test_number_of_heads_is_the_releases(width, proposed, heads):
    assert choose_num_heads(width, proposed) == heads
    assert QFormerConfig(8, width, num_heads=proposed).heads == heads


def test_features_past_the_mask_do_not_matter():
    _, refiner = models()
    features = condition([1, 1], [5, 2])
    run = jax.jit(lambda m, x, mask: m(x, mask))
    out = run(refiner, features.image, features.image_mask)
    other = jnp.where(features.image_mask[..., None], features.image, 7.0)
    np.testing.assert_array_equal(run(refiner, other, features.image_mask), out)
    alone = run(refiner, features.image[1:, :2], features.image_mask[1:, :2])
    np.testing.assert_allclose(alone[0], out[1], atol=1e-5)


def test_at_the_backbones_stage_queries_pass_the_caption_embedder():
    dit, inside = models()
    config = QFormerConfig(
        input_width=WIDTH, width=WIDTH, stage="llm", num_queries=3, num_layers=1, num_heads=3
    )
    outside = randomized(abstract(lambda: QFormer(config)), 5)
    features = condition([2], [4])
    embed = jax.jit(embed_condition)
    queries = jax.jit(lambda m, f: m(f.image, f.image_mask))
    tokens, mask = embed(dit, outside, features)
    assert tokens.shape == (1, 6 + 3, 16) and mask.tolist() == [[True] * 2 + [False] * 4 + [True] * 3]
    captioned = jax.jit(lambda d, x: d.caption(x))(dit, queries(outside, features))
    np.testing.assert_allclose(tokens[:, 6:], captioned, atol=1e-5)
    np.testing.assert_allclose(embed(dit, inside, features)[0][:, 6:], queries(inside, features), atol=1e-5)


def test_a_stage_that_keeps_the_width_must_not_change_it():
    with pytest.raises(ValueError, match="llm"):
        QFormerConfig(input_width=8, width=16, stage="llm")
