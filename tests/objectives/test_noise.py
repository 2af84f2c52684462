"""Noise on visual input tokens: rates, rectangles, true neighbours, and nothing else touched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.objectives.noise import (
    Neighbours,
    NoisePlaces,
    RegionNoise,
    SimilarityNoise,
    VisualCodes,
    add_noise,
    nearest_codes,
)

CODES = VisualCodes(start=1000, count=300)
K = 5
GRIDS = [(6, 9), (4, 4), (12, 7), (1, 10)]
START, LINE_END = 990, 991


@functools.cache
def codebook():
    x = np.random.default_rng(0).standard_normal((CODES.count, 4))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def neighbours():
    return Neighbours(nearest_codes(jnp.asarray(codebook()), K, block=64))


def rows(num_rows):
    """Rows that hold a picture of each grid after some words: ids, and where their visual tokens are."""
    rng = np.random.default_rng(1)
    ids, cells, sample = [], [], []
    for number, (height, width) in enumerate(GRIDS, 1):
        ids += [7, 8, START]
        cells += [(-1, -1)] * 3
        sample += [0] * 3
        for row in range(height):
            ids += [*rng.integers(CODES.start, CODES.start + CODES.count, width), LINE_END]
            cells += [*((row, col) for col in range(width)), (-1, -1)]
            sample += [number] * width + [0]
    spread = [
        np.broadcast_to(np.asarray(x, np.int32), (num_rows, *np.shape(x))) for x in (ids, cells, sample)
    ]
    return jnp.asarray(spread[0]), NoisePlaces(jnp.asarray(spread[1]), jnp.asarray(spread[2]))


@functools.partial(jax.jit, static_argnames="noise")
def noised(noise, ids, places, keys, table):
    return add_noise(noise, ids, places, keys, CODES, table)


def sample_keys(num_rows, seed=0):
    return jax.random.split(jax.random.key(seed), (num_rows, len(GRIDS)))


def run(noise, num_rows=400):
    ids, places = rows(num_rows)
    return (
        np.asarray(ids),
        np.asarray(noised(noise, ids, places, sample_keys(num_rows), neighbours())),
        places,
    )


@pytest.mark.parametrize(
    "noise", [SimilarityNoise(rate=0.15, neighbours=K), RegionNoise(rate=0.15, smallest=0.2)]
)
def test_only_visual_tokens_change_and_the_rate_holds(noise):
    ids, out, places = run(noise)
    visual = np.asarray(places.sample) > 0
    np.testing.assert_array_equal(out[~visual], ids[~visual])
    assert out[visual].min() >= CODES.start and out[visual].max() < CODES.start + CODES.count
    for number in range(1, len(GRIDS) + 1):
        own = np.asarray(places.sample[0]) == number
        rates = (out != ids)[:, own].mean(axis=1)
        # a random code is the token's own one time in 300, a neighbour never is
        expected = noise.rate * (1 - 1 / CODES.count if isinstance(noise, RegionNoise) else 1)
        assert abs(rates.mean() - expected) < 3 * rates.std() / np.sqrt(len(rates))


def test_regions_are_rectangles_of_the_asked_sizes():
    noise = RegionNoise(rate=0.2, smallest=0.2, largest=0.4)
    sizes = jnp.broadcast_to(jnp.asarray(GRIDS), (300, len(GRIDS), 2))
    boxes = np.asarray(jax.jit(noise.regions)(sample_keys(300), sizes))
    ids, out, places = run(noise, 300)
    for number, (height, width) in enumerate(GRIDS, 1):
        box = boxes[:, number - 1]
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        assert (box >= 0).all() and (box[:, 2] <= height).all() and (box[:, 3] <= width).all()
        share = area[area > 0] / (height * width)
        assert share.min() >= 0.2 and np.median(share) < 0.5
        own = np.asarray(places.sample[0]) == number
        cells = np.asarray(places.cells[0])[own]
        row, col = cells[:, 0], cells[:, 1]
        top, left, bottom, right = (edge[:, None] for edge in box.T)
        inside = (row >= top) & (row < bottom) & (col >= left) & (col < right)
        changed = (out != ids)[:, own]
        assert not changed[~inside].any()
        assert changed[inside].mean() > 0.98  # a random code may be the token's own
        assert len(np.unique(box[area > 0, :2], axis=0)) > 3 or height * width < 12  # anywhere in the picture


def test_replacements_are_the_nearest_codes_and_all_of_them():
    table = np.asarray(neighbours().table[...])
    distance = np.linalg.norm(codebook()[:, None].astype(np.float64) - codebook()[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.sort(distance, axis=1)[:, :K]
    np.testing.assert_allclose(np.take_along_axis(distance, table, axis=1), nearest, atol=1e-6)
    ids, out, places = run(SimilarityNoise(rate=0.5, neighbours=K))
    changed = out != ids
    picked = (table[ids[changed] - CODES.start] == (out[changed] - CODES.start)[:, None]).nonzero()
    assert len(picked[0]) == changed.sum()
    counts = np.bincount(picked[1], minlength=K)
    assert np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean())


@pytest.mark.parametrize(
    "noise", [SimilarityNoise(rate=0.4, neighbours=K), RegionNoise(rate=0.2, smallest=0.3)]
)
def test_a_samples_noise_is_the_same_in_any_row_and_slot(noise):
    ids, places = rows(6)
    keys = sample_keys(6)
    plain = noised(noise, ids, places, keys, neighbours())
    order = jnp.asarray([2, 0, 3, 1])  # sample i + 1 is now in slot order.index(i) + 1
    slot = jnp.asarray([0, 2, 4, 1, 3])
    moved = NoisePlaces(jnp.roll(places.cells, 5, axis=1), slot[jnp.roll(places.sample, 5, axis=1)])
    other = noised(noise, jnp.roll(ids, 5, axis=1), moved, keys[:, order], neighbours())
    assert (plain != ids).any()
    np.testing.assert_array_equal(jnp.roll(other, -5, axis=1), plain)


def test_what_noise_needs_is_asked_for():
    ids, places = rows(1)
    with pytest.raises(InputError, match="table of neighbours"):
        add_noise(SimilarityNoise(neighbours=K), ids, places, sample_keys(1), CODES, None)
    with pytest.raises(InputError, match="300x5"):
        add_noise(SimilarityNoise(neighbours=6), ids, places, sample_keys(1), CODES, neighbours())
    with pytest.raises(InputError, match=r"rate 0\.3"):
        RegionNoise(rate=0.3, smallest=0.2)
    with pytest.raises(InputError, match="between 1 and 3"):
        nearest_codes(jnp.ones((4, 2)), 4)
