"""What edits add to the programs: pictures in prompts, the release's second pass, reference latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.models.backbone.multimodal import NO_FEATURE
from mammoth_jax.models.backbone.vision_inputs import VisionFeatures
from mammoth_jax.sampling.decode import DecodedSequence, PromptPictures, prefill, reread
from mammoth_jax.sampling.unified import encode_references
from tests.tiny_model import tiny_pipeline

IDS = np.array(
    [[300, 5, 268, 268, 7, 1030, 0, 0]]
)  # two picture placeholders, one generation token, two pads
LENGTHS = np.array([6], np.int32)


@functools.cache
def pipeline():
    return tiny_pipeline()


@functools.cache
def run_prefill(with_picture: bool, changed: bool = False):
    pipe = pipeline()
    pictures = None
    if with_picture:
        rng = np.random.default_rng(1 + changed)
        features = VisionFeatures(
            jnp.asarray(rng.standard_normal((1, 2, 32)), jnp.float32),
            jnp.asarray(rng.standard_normal((1, 1, 2, 32)), jnp.float32),
        )
        slots = np.where(IDS == 268, np.cumsum(IDS == 268) - 1, NO_FEATURE).astype(np.int32)
        positions = np.broadcast_to(np.array([0, 1, 2, 2, 4, 5, 0, 0]), (3, 1, 8)).copy()
        positions[2, 0, 3] = 3
        pictures = PromptPictures(features, jnp.asarray(slots), jnp.asarray(positions), jnp.asarray([6]))
    program = jax.jit(prefill, static_argnames="plan")
    return program(pipe.loaded.model.decoder, IDS, LENGTHS, plan=pipe.decode_plan, pictures=pictures)


def test_a_picture_changes_what_follows_it_and_nothing_before_it():
    plain, seen, other = run_prefill(False), run_prefill(True), run_prefill(True, changed=True)
    assert np.array_equal(seen.features[0, :2], plain.features[0, :2])
    assert np.abs(seen.features[0, 2:6] - plain.features[0, 2:6]).min(axis=-1).max() > 1e-4
    assert np.abs(seen.logits - other.logits).max() > 1e-4
    assert int(seen.cache.position[0]) == 6 and int(seen.cache.length[0]) == 6


def test_the_second_pass_sees_no_pixels_and_skips_holes():
    model = pipeline().loaded.model
    taps = pipeline().decode_plan.taps
    seen = run_prefill(True)
    valid = jnp.asarray([[True] * 6 + [False] * 2])
    sequence = DecodedSequence(jnp.asarray(IDS), seen.features, valid, jnp.zeros_like(valid))
    again = jax.jit(reread, static_argnames="taps")(model.decoder, sequence, taps=taps)
    assert np.allclose(again.features[0, :6], run_prefill(False).features[0, :6], atol=1e-5)
    hole = jnp.asarray([[300, 5, 9, 9, 268, 268, 7, 1030]])
    spaced = DecodedSequence(
        hole, jnp.zeros((1, 8, 32)), jnp.asarray([[True, True, False, False, True, True, True, True]]), valid
    )
    skipped = jax.jit(reread, static_argnames="taps")(model.decoder, spaced, taps=taps)
    kept = np.asarray(skipped.features)[0, [0, 1, 4, 5, 6, 7]]
    assert np.allclose(kept, again.features[0, :6], atol=1e-5)


def test_reference_latents_are_the_posterior_mean_unless_noise_is_given():
    vae = pipeline().loaded.model.vae
    picture = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 8, 16, 3)), jnp.float32)
    mean = encode_references(vae, picture)
    assert mean.shape == (1, 2, 4, 4)
    assert np.array_equal(mean, vae.scale_latents(vae.encode(picture).mean))
    assert np.array_equal(encode_references(vae, picture, jnp.zeros(mean.shape)), mean)
    assert np.abs(encode_references(vae, picture, jnp.ones(mean.shape)) - mean).max() > 1e-3
