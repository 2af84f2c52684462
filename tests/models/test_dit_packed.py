"""Packed rows of the diffusion transformer: a sample is what it is alone, whatever shares its row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition, PackedCondition
from mammoth_jax.models.dit.context import encode_condition, encode_packed, packed_queries
from mammoth_jax.models.dit.packed import PackedPlaces, PackedReferences
from mammoth_jax.models.dit.positions import TimeAxis
from mammoth_jax.models.dit.transformer import DiT, References
from mammoth_jax.ops.take_tokens import inverse_index, place_in_segment, take_tokens
from tests.tiny_dit import CONFIG, REFINER, WIDTH, models, randomized

TEXT, IMAGE = [4, 2, 5], [3, 5, 2]
SIZES = [(2, 3), (1, 2), (2, 2)]
REFERENCES = [[(2, 2), (1, 3)], [], [(3, 1)]]
TIMES = [0.15, 0.5, 0.85]


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def grid(offset, rows, cols):
    where = np.indices((rows, cols)).reshape(2, -1).T
    return np.concatenate([np.full((rows * cols, 1), offset), where], axis=1)


class Samples:
    """Three samples, one a row as in sampling, or in one packed row with padding."""

    def __init__(self, queries):
        self.text = [draw(1, n, WIDTH)[0] for n in TEXT]
        self.image = [draw(2, n, WIDTH)[0] for n in IMAGE]
        self.x = [draw(rows * cols, CONFIG.patch_values) for rows, cols in SIZES]
        self.references = [[draw(r * c, CONFIG.patch_values) for r, c in row] for row in REFERENCES]
        self.queries = queries

    def alone(self, i):
        """One sample's inputs: condition, latents, time, size, references."""
        ones = [jnp.ones((1, len(x)), bool) for x in (self.text[i], self.image[i])]
        condition = Condition(self.text[i][None], ones[0], self.image[i][None], ones[1])
        references = None
        if REFERENCES[i]:
            longest = max(map(len, self.references[i]))
            patches = [np.pad(x, ((0, longest - len(x)), (0, 0))) for x in self.references[i]]
            references = References(jnp.asarray(np.stack(patches))[None], jnp.asarray([REFERENCES[i]]))
        return condition, self.x[i][None], jnp.asarray([TIMES[i]]), jnp.asarray([SIZES[i]]), references

    def packed(self, order):
        """The samples ``order`` in one row of which the last few tokens are padding."""
        features, owner, index, segments = [], [], [], []
        patches, reference, number, ref_sample, ref_where = [], [], [], [], []
        x, target_sample, where = [], [], []
        length = sum(TEXT[i] + IMAGE[i] for i in order)
        for s, i in enumerate(order, 1):
            first = sum(map(len, features))
            features += [self.text[i], self.image[i]]
            owner += [0] * TEXT[i] + [s] * IMAGE[i]
            index += [*range(first, first + TEXT[i])]
            index += [*range(length + (s - 1) * self.queries, length + s * self.queries)]
            segments += [s] * (TEXT[i] + self.queries)
            offset = TEXT[i] + self.queries
            for k, (size, values) in enumerate(zip(REFERENCES[i], self.references[i], strict=True)):
                patches.append(values)
                reference += [1 + max(reference, default=0)] * len(values)
                number += [k] * len(values)
                ref_sample += [s] * len(values)
                ref_where.append(grid(offset, *size))
                offset += max(size)
            x.append(self.x[i])
            target_sample += [s] * len(self.x[i])
            where.append(grid(offset, *SIZES[i]))
        segments += [0] * 2
        ref_sample += [0] * 3
        target_sample += [0] * 4
        owners = np.array(segments + ref_sample + target_sample)
        joint = [np.flatnonzero(owners == s) for s in range(1, len(order) + 1)]
        condition = PackedCondition(
            jnp.asarray(np.concatenate(features))[None],
            jnp.asarray([owner]),
            jnp.asarray([[*index, -1, -1]]),
            jnp.asarray([segments]),
            len(order),
        )
        references = PackedReferences(
            np.concatenate([*patches, draw(3, CONFIG.patch_values)])[None],
            jnp.asarray([reference + [0] * 3]),
            jnp.asarray([number + [0] * 3]),
            jnp.asarray([ref_sample]),
            jnp.asarray(np.concatenate([*ref_where, np.zeros((3, 3), int)]))[None],
        )
        places = PackedPlaces(
            jnp.asarray([target_sample]),
            jnp.asarray(np.concatenate([*where, np.zeros((4, 3), int)]))[None],
            jnp.asarray([[*np.concatenate(joint), -1, -1, -1]]),
            references,
        )
        noisy = np.concatenate([*x, draw(4, CONFIG.patch_values)])[None]
        return condition, noisy, jnp.asarray([[TIMES[i] for i in order]]), places


def own(parts, sample):
    condition, x, time, size, references = sample
    return parts[0](x, time, encode_condition(*parts, condition), size, references)


@jax.jit
def velocities(parts, samples):
    return [own(parts, sample)[0] for sample in samples]


@jax.jit
def packed_velocity(parts, row):
    condition, x, time, places = row
    context = encode_packed(*parts, condition, packed_queries(parts[1], condition))
    joint = parts[0].embed_packed(x, time, context, places)
    return parts[0].read_out(joint, parts[0].run(joint)[0])[0]


def variants():
    dit, refiner = models()
    backbone = dataclasses.replace(REFINER, width=WIDTH, stage="llm", num_heads=3)
    timed = abstract(lambda: DiT(dataclasses.replace(CONFIG, first_axis=TimeAxis(10.0))))
    return {
        "dit": (dit, refiner),
        "llm": (dit, randomized(abstract(lambda: QFormer(QFormerConfig(**vars(backbone)))), 5)),
        "time": (randomized(timed, 1), refiner),
    }


@pytest.mark.parametrize(
    "variant", ["dit", *(pytest.param(v, marks=pytest.mark.slow) for v in ("llm", "time"))]
)
def test_a_sample_in_a_packed_row_is_the_sample_alone(variant):
    parts = variants()[variant]
    samples = Samples(REFINER.num_queries)
    alone = velocities(parts, [samples.alone(i) for i in range(3)])
    order = (2, 0, 1)
    row = packed_velocity(parts, samples.packed(order))
    first = 0
    for i in order:
        count = len(samples.x[i])
        assert np.abs(alone[i]).max() > 0.1
        np.testing.assert_allclose(row[first : first + count], alone[i], atol=2e-5)
        first += count


@pytest.mark.slow
def test_gradients_of_a_packed_row_are_the_sums_of_its_samples():
    parts, samples = variants()["dit"], Samples(REFINER.num_queries)

    @jax.jit
    @jax.grad
    def separate(parts):
        return sum(jnp.sum(jnp.sin(own(parts, samples.alone(i)))) for i in range(3))

    @jax.jit
    @jax.grad
    def together(parts):
        row = packed_velocity(parts, samples.packed((0, 1, 2)))
        return jnp.sum(jnp.sin(row[: sum(map(len, samples.x))]))

    got, expected = together(parts), separate(parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 + 1e-4 * np.abs(b).max()), got, expected
    )


def test_the_time_axis_moves_targets_with_time_alone():
    where = jnp.asarray(grid(7, 1, 2))[None]
    placed = TimeAxis(100.0).place(where, jnp.asarray([[0.25, 0.5]]))
    np.testing.assert_allclose(placed[0], [[25, 0, 0], [50, 0, 1]])


def test_tokens_are_taken_with_zeros_for_nothing_and_found_again():
    x = jnp.arange(1.0, 6.0).reshape(1, 5, 1)
    index = jnp.asarray([[3, -1, 0, -1]])
    np.testing.assert_array_equal(take_tokens(x, index)[0, :, 0], [4, 0, 1, 0])
    np.testing.assert_array_equal(inverse_index(index, 5), [[2, -1, -1, 0, -1]])
    gradient = jax.grad(lambda x: jnp.sum(take_tokens(x, index) * jnp.arange(1.0, 5.0)[:, None]))(x)
    np.testing.assert_array_equal(gradient[0, :, 0], [3, 0, 0, 1, 0])


def test_places_count_within_segments_that_may_have_gaps():
    np.testing.assert_array_equal(
        place_in_segment(jnp.asarray([[1, 1, 0, 1, 2, 2, 0]]), 2), [[0, 1, 0, 2, 0, 1, 0]]
    )
