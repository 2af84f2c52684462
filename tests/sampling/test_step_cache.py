"""Step caching: which evaluations reuse a result, and what that changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.compat import NO_FAULTS
from mammoth_jax.core.errors import InputError
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.sampling.diffusion import diffuse, initial_noise
from mammoth_jax.sampling.step_cache import Direct, StepCache, relative_change
from tests.tiny_dit import CONFIG, condition, models

STEPS = 8
SIZES = jnp.array([[2, 3], [4, 1]])
TIMES = jnp.asarray(inference_times(STEPS, np.asarray(SIZES) * 40))
SCALES = jnp.array([3.0, 1.5])

run = jax.jit(diffuse, static_argnames=("guidance", "step_cache"))


@pytest.fixture(scope="module")
def parts():
    return models()


@pytest.fixture(scope="module")
def inputs(parts):
    noise = jax.jit(initial_noise, static_argnums=(1, 2))(jnp.array([5, 6]), 6, CONFIG.patch_values)
    return *parts, condition([6, 3], [5, 2]), condition([2, 4], text_size=4, seed=9), noise, SIZES, TIMES


@pytest.fixture(scope="module")
def exact(inputs):
    return run(*inputs, guidance="never")


def test_no_change_is_small_enough_at_a_threshold_of_almost_nothing(inputs, exact):
    cached = run(*inputs, guidance="never", step_cache=StepCache(1e-9))
    assert int(cached.reused_evaluations) == int(exact.reused_evaluations) == 0
    np.testing.assert_allclose(cached.latents, exact.latents, atol=1e-6)


def test_first_and_last_step_run_whatever_the_threshold(inputs, exact):
    cached = run(*inputs, guidance="never", step_cache=StepCache(1e9))
    assert int(cached.reused_evaluations) == STEPS - 2
    assert 1e-4 < float(jnp.abs(cached.latents - exact.latents)[:, :4].max()) < 10


def test_reuse_follows_the_summed_change_of_what_the_first_block_reads(parts, inputs):
    """The same with the loop and the decisions written out on the host."""
    dit, refiner = parts
    threshold = 2.0
    cached = run(*inputs, guidance="never", step_cache=StepCache(threshold))
    context = jax.jit(encode_condition)(dit, refiner, inputs[2])

    @jax.jit
    def look(x, t):
        joint = dit.embed(x, t, context, SIZES)
        first = jax.tree.map(lambda stack: stack[0], dit.layers)
        output = dit.run(joint)[0]
        return joint.tokens, first.modulated_input(joint.tokens, joint.time), output, joint.mask

    @jax.jit
    def velocity(x, t, tokens):
        return dit.read_out(dit.embed(x, t, context, SIZES), tokens)

    x, before, residual, total, reused = inputs[4], None, None, 0.0, []
    for i in range(STEPS):
        tokens, modulated, output, mask = look(x, TIMES[i])
        if before is not None:
            shown = np.asarray(mask)[..., None]
            change = np.abs(np.asarray(modulated - before) * shown).sum((1, 2))
            total += (change / np.abs(np.asarray(before) * shown).sum((1, 2))).max()
        if before is not None and i < STEPS - 1 and total < threshold:
            output = tokens + residual
            reused.append(i)
        else:
            residual, total = output - tokens, 0.0
        before = modulated
        x = x + (TIMES[i + 1] - TIMES[i])[:, None, None] * velocity(x, TIMES[i], output)
    assert 0 < len(reused) < STEPS - 2 and int(cached.reused_evaluations) == len(reused)
    for row, tokens in enumerate((6, 4)):
        np.testing.assert_allclose(cached.latents[row, :tokens], x[row, :tokens], atol=1e-4)


def test_guided_and_unguided_steps_have_caches_of_their_own(inputs):
    flags = jnp.asarray(guided_steps(STEPS, (0.0, 0.4)))
    result = run(*inputs, guidance="ranged", guided=flags, text_guidance=SCALES, step_cache=StepCache(1e9))
    assert int(result.guided_evaluations) == 4
    assert int(result.reused_evaluations) == STEPS - 3  # the first of either kind, and the last step, run


def test_change_is_relative_and_of_the_row_that_changes_most():
    old = jnp.ones((2, 3, 4)).at[1].set(10.0)
    new = old.at[0].add(0.5).at[1].add(1.0).at[:, 2].set(99.0)
    mask = jnp.array([[True, True, False]] * 2)
    np.testing.assert_allclose(relative_change(new, old, mask), 0.5)
    assert float(relative_change(new, jnp.zeros_like(old), mask)) > 1e6


def test_a_threshold_must_be_positive_and_none_means_the_plain_network(parts):
    with pytest.raises(ValueError, match="more than 0"):
        StepCache(0.0)
    assert Direct(parts[0], NO_FAULTS).start(2, 8) is None
    assert TextToImageOptions().step_cache == 0.0
    with pytest.raises(InputError, match="step_cache -1"):
        TextToImageOptions(step_cache=-1)
