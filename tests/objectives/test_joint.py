"""The joint objective: what a sample costs and teaches does not depend on what shares its row."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.data.packing.dropout import Dropped
from mammoth_jax.data.packing.encoding import encode_rows
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig
from mammoth_jax.data.packing.rows import pack_rows
from mammoth_jax.data.packing.sample import Prepared, prepare
from mammoth_jax.data.packing.workers import Ready
from mammoth_jax.models.backbone.vision_inputs import Qwen3VLVisionInputs
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.objectives.joint import joint_forward, joint_terms, survey, weighted_loss
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.objectives.joint_draws import Draws, draw
from mammoth_jax.objectives.noise import Neighbours, SimilarityNoise, VisualCodes, nearest_codes
from mammoth_jax.sampling.decode import PromptPictures, prefill
from tests.data.packing.examples import Checksums, asked, drawn, edited, geometry
from tests.tiny_model import random_model_words, random_weights, tiny_config, tiny_pipeline

PARTS = frozenset({"text_decoder", "generation_experts", "vision_tower", "refiner", "dit"})
NOISY = JointObjectiveConfig(ntp=1.0, flow=0.5, alignment=0.3, noise=SimilarityNoise(rate=0.3, neighbours=4))
EXAMPLES = (
    (drawn("a red ball", 1, 16, 24), Dropped()),
    (edited("make it blue", 2, 2), Dropped()),
    (asked(3), Dropped()),
    (drawn("two boxes", 4, 24, 16), Dropped(prompt=True, condition=True)),
)


@functools.cache
def model() -> Mammoth:
    return random_weights(abstract(lambda: Mammoth(tiny_config(), parts=PARTS)), 0, single_device_mesh())


@functools.cache
def vocabulary():
    words, count = random_model_words().settings, tiny_config().mammothtok.codebook_size
    codebook = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    return VisualCodes(words.visual_start, count), Neighbours(nearest_codes(jnp.asarray(codebook), 4))


@functools.cache
def prepared() -> tuple[Prepared, ...]:
    room = PackingConfig(
        tokens=4096, patches=4096, conditions=4096, references=4096, targets=4096, joint=4096, samples=8
    )
    return tuple(prepare(example, geometry(), room, dropped) for example, dropped in EXAMPLES)


def batch(rows):
    """Rows of these examples, in arrays that just hold all of them in one row; the numbers name the samples' draws."""
    total = Lengths(*np.sum([each.lengths for each in prepared()], axis=0).tolist())
    room = {name: getattr(total, name) + 4 for name in Lengths._fields}
    room["samples"] -= 3  # one slot stays empty
    placed = [[(i % 2, Ready(10 + i, 0, prepared()[i])) for i in row] for row in rows]
    packed = pack_rows(encode_rows(placed, Checksums()), geometry(), PackingConfig(**room))
    return {name: jnp.asarray(x) for name, x in packed.items()}


@functools.partial(jax.jit, static_argnames="config")
def loss_and_gradients(model, data, table, config):
    """As the step takes them, for a batch of one part."""
    draws = draw(config, data, jax.random.key(5), vocabulary()[0], table)
    whole = survey(jax.tree.map(lambda x: x[None], data))

    def loss(model):
        forward = joint_forward(model, data, draws, config)
        terms = joint_terms(forward, data, model.config.backbone.decoder.gen_vocab_start_index)
        return weighted_loss(terms, whole, config), terms

    return jax.value_and_grad(loss, has_aux=True)(model)


@pytest.mark.slow
def test_a_mixed_row_costs_and_teaches_what_its_samples_do_alone():
    mixed, alone = batch([[2, 1, 0, 3], [], [], []]), batch([[0], [1], [2], [3]])  # one program
    one, grads = loss_and_gradients(model(), mixed, vocabulary()[1], NOISY)
    other, separate = loss_and_gradients(model(), alone, vocabulary()[1], NOISY)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for name, term in one[1].items():
        np.testing.assert_allclose(term.total, other[1][name].total, rtol=1e-5)
        assert float(term.weight) == float(other[1][name].weight) > 0
    named = named_parameters(grads)
    for name, expected in named_parameters(separate).items():
        largest = float(jnp.abs(expected[...]).max())
        assert largest > 0, name
        np.testing.assert_allclose(named[name][...], expected[...], atol=1e-5 * largest + 1e-7, err_msg=name)


@pytest.mark.slow
def test_without_gradients_of_the_condition_the_flow_loss_does_not_teach_the_backbone():
    config = dataclasses.replace(NOISY, ntp=0.0, noise=None, condition_gradients=False)
    data = {name: x for name, x in batch([[0]]).items() if not name.startswith(("patch", "feature"))}
    _, grads = loss_and_gradients(model(), data, vocabulary()[1], config)
    moved = {name.split(".")[0] for name, g in named_parameters(grads).items() if np.any(g[...])}
    assert moved == {"dit", "refiner"}


def test_the_features_are_those_that_sampling_meets_when_it_draws_the_same_tokens():
    data = batch([[1]])
    forward = jax.jit(joint_forward)(model(), data, Draws(data["ids"], *drawn_at_noise(data)))
    labels, ids = np.asarray(data["labels"][0]), data["ids"][0]
    first, last = np.flatnonzero(labels >= 0)[[0, -1]]
    pictures = ("patches", "patch_rope", "patch_frames", "patch_cells", "patch_cell_weights")

    @jax.jit
    def sample(model):
        where = data["token_positions"][0][:, None]
        placed = PromptPictures(
            model.vision(Qwen3VLVisionInputs(*(data[name] for name in pictures))),
            data["feature_slots"][:, :first],
            where[:, :, :first],
            where[0, :, first],
        )
        plan = tiny_pipeline().decode_plan
        read = prefill(model.decoder, ids[None, :first], jnp.asarray([first]), plan, placed)
        room = ((0, 0), (0, 0), (0, 0), (0, last + 1 - first), (0, 0))
        cache = dataclasses.replace(
            read.cache, keys=jnp.pad(read.cache.keys, room), values=jnp.pad(read.cache.values, room)
        )

        def step(cache, token):
            _, features, cache = model.decoder.step(token[None], cache, taps=plan.taps)
            return cache, features[0]

        _, drawn = jax.lax.scan(step, cache, ids[first : last + 1])
        return jnp.concatenate([read.features[0], drawn])

    np.testing.assert_allclose(forward.features[0, : last + 1], sample(model()), atol=1e-5)


def drawn_at_noise(data):
    """Times of 0 and latents of nothing."""
    zero = jnp.zeros_like(data["target_mean"])
    return jnp.zeros(data["sample_number"].shape), zero, zero
