import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import SOLVERS, Euler, Heun
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.transformer import References
from mammoth_jax.sampling.diffusion import diffuse, initial_noise
from tests.tiny_dit import CONFIG, condition, models, row

STEPS = 10
SIZES = jnp.array([[2, 3], [4, 1]])
TIMES = jnp.asarray(inference_times(STEPS, np.asarray(SIZES) * 40))
SCALES = jnp.array([3.0, 1.5])

run = jax.jit(diffuse, static_argnames=("solver", "guidance", "faults", "trace"))
draw = jax.jit(initial_noise, static_argnums=(1, 2))
encode = jax.jit(encode_condition)
evaluate = jax.jit(lambda dit, *args: dit(*args))


@pytest.fixture(scope="module")
def parts():
    return models()


def positive():
    return condition([6, 3], [5, 2])


def negative():
    return condition([2, 4], text_size=4, seed=9)


def noise(num_tokens=6):
    return draw(jnp.array([5, 6]), num_tokens, CONFIG.patch_values)


def references():
    patches = jnp.asarray(
        np.random.default_rng(1).standard_normal((2, 1, 4, CONFIG.patch_values)), jnp.float32
    )
    return References(patches, jnp.array([[[2, 2]], [[1, 3]]]))


def test_a_guidance_range_equals_steps_written_out_and_its_evaluations_are_counted(parts):
    flags = guided_steps(STEPS, (0.3, 1.0))
    result = run(
        *parts, positive(), negative(), noise(), SIZES, TIMES,
        guidance="ranged", guided=jnp.asarray(flags), text_guidance=SCALES, trace=True,
    )  # fmt: skip
    conditional, unconditional = encode(*parts, positive()), encode(*parts, negative())
    x, guided = noise(), 0
    for i in range(STEPS):
        t, h = TIMES[i], (TIMES[i + 1] - TIMES[i])[:, None, None]
        v = evaluate(parts[0], x, t, conditional, SIZES)
        if 0.3 <= i / STEPS <= 1.0:
            u = evaluate(parts[0], x, t, unconditional, SIZES)
            v = u + SCALES[:, None, None] * (v - u)
            guided += 1
        np.testing.assert_allclose(result.velocities[i, 1, :4], v[1, :4], atol=1e-4)
        x = x + h * v
        np.testing.assert_allclose(result.trajectory[i, 0], x[0], atol=1e-4)
    assert int(result.guided_evaluations) == guided == 7
    np.testing.assert_array_equal(result.trajectory[-1], result.latents)


def test_unguided_steps_do_not_hold_the_extra_branches(parts):
    """The larger batch appears only inside the conditional, so that a step outside the range cannot pay for it."""
    args = (*parts, positive(), negative(), noise(), SIZES, TIMES)
    program = jax.make_jaxpr(functools.partial(diffuse, guidance="ranged"))(
        *args, guided=jnp.ones(STEPS, bool), text_guidance=SCALES
    )
    scan = [e for e in program.eqns if e.primitive.name == "scan" and e.params["length"] == STEPS]
    names = [e.primitive.name for e in scan[0].params["jaxpr"].eqns]
    assert len(scan) == 1 and names.count("cond") == 1
    assert "scan" not in names and "dot_general" not in names  # the network runs only in the branches


def test_a_row_at_scale_one_is_exactly_the_unguided_prediction_of_its_branch(parts):
    guided = run(
        *parts, positive(), negative(), noise(), SIZES, TIMES, text_guidance=jnp.array([1.0, 3.0])
    ).latents  # fmt: skip
    plain = run(*parts, positive(), None, noise(), SIZES, TIMES, guidance="never")
    np.testing.assert_allclose(guided[0], plain.latents[0], atol=1e-5)
    assert np.abs(guided[1, :4] - plain.latents[1, :4]).max() > 1e-2
    assert int(plain.guided_evaluations) == 0


def test_an_image_depends_on_its_own_row_alone(parts):
    args = (positive(), negative(), noise(8), SIZES, TIMES.T)
    kept = {"solver": SOLVERS["dpmpp2m"]}
    both = run(*parts, *args[:4], args[4].T, text_guidance=SCALES, **kept)
    for i, tokens in enumerate((6, 4)):
        one = row(args, i)
        alone = run(
            *parts,
            one[0],
            one[1],
            one[2][:, :tokens],
            one[3],
            one[4].T,
            text_guidance=SCALES[i : i + 1],
            **kept,
        )
        np.testing.assert_allclose(alone.latents[0], both.latents[i, :tokens], atol=1e-4)


def test_three_branches_keep_references_and_drop_them_as_the_release(parts):
    times = TIMES[jnp.array([0, STEPS])]  # one step from noise to data: the latents show the velocity
    image = jnp.array([2.0, 1.0])
    result = run(
        *parts, positive(), negative(), noise(), SIZES, times,
        text_guidance=jnp.array([3.0, 3.0]), image_guidance=image, references=references(),
    )  # fmt: skip
    conditional, unconditional = encode(*parts, positive()), encode(*parts, negative())
    c = evaluate(parts[0], noise(), times[0], conditional, SIZES, references())
    r = evaluate(parts[0], noise(), times[0], unconditional, SIZES, references())
    u = evaluate(parts[0], noise(), times[0], unconditional, SIZES)
    both, text = u + 2 * (r - u) + 3 * (c - r), u + 3 * (c - u)
    np.testing.assert_allclose(result.latents[0], (noise() + both)[0], atol=1e-4)
    np.testing.assert_allclose(result.latents[1, :4], (noise() + text)[1, :4], atol=1e-4)


def test_heun_counts_two_guided_evaluations_a_step(parts):
    flags = jnp.asarray(guided_steps(STEPS, (0.0, 0.35)))
    result = run(
        *parts, positive(), negative(), noise(), SIZES, TIMES,
        solver=Heun(), guidance="ranged", guided=flags, text_guidance=SCALES,
    )  # fmt: skip
    assert int(result.guided_evaluations) == 2 * 4


def test_guidance_without_its_arguments_is_refused(parts):
    with pytest.raises(ValueError, match="negative"):
        run(*parts, positive(), None, noise(), SIZES, TIMES, solver=Euler())
    with pytest.raises(ValueError, match="flags"):
        run(*parts, positive(), negative(), noise(), SIZES, TIMES, guidance="ranged", text_guidance=SCALES)


def test_noise_of_a_token_depends_on_its_seed_and_index_alone():
    few, many = draw(jnp.array([7]), 4, 8), draw(jnp.array([1, 7, 9]), 200, 8)
    np.testing.assert_array_equal(few[0], many[1, :4])
    assert abs(float(many.std()) - 1) < 0.05
