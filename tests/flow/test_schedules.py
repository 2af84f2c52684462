import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.flow.path import interpolate, predict_data, predict_noise, velocity_target
from mammoth_jax.flow.schedules import (
    ExponentialShift,
    NoShift,
    ResolutionShift,
    inference_times,
    uniform_times,
)
from mammoth_jax.flow.time_sampling import LogisticNormal, StratifiedUniform, Uniform


def test_inference_times_follow_each_rows_latent_size():
    times = inference_times(5, [(40, 40), (128, 128), (30, 64)])
    assert times.shape == (6, 3) and times.dtype == np.float32
    np.testing.assert_array_equal(times[0], 0)
    np.testing.assert_array_equal(times[-1], 1)
    np.testing.assert_allclose(times[:, 0], uniform_times(5, 1)[:, 0])
    t = np.linspace(0, 1, 6)
    np.testing.assert_allclose(times[:, 1], t / (3.2 - 3.2 * t + t), rtol=1e-6)
    assert (np.diff(times, axis=0) > 0).all()


@pytest.mark.parametrize("shift", [ExponentialShift(), ResolutionShift()])
def test_more_tokens_move_training_times_towards_noise(shift):
    t = jnp.full(3, 0.5)
    out = shift(t, jnp.array([400, 1024, 4096]))
    assert out[0] > out[1] > out[2]
    ends = shift(jnp.array([0.0, 1.0]), jnp.array([1024, 1024]))
    np.testing.assert_array_equal(ends, [0, 1])


def test_fixed_tokens_ignore_the_picture():
    t = jnp.array([0.2, 0.8])
    for kind in (ExponentialShift, ResolutionShift):
        static = kind(fixed_tokens=1024)(t, jnp.array([64, 4096]))
        np.testing.assert_allclose(static, kind()(t, jnp.array([1024, 1024])))
    np.testing.assert_array_equal(NoShift()(t, jnp.array([1, 2])), t)


def test_resolution_shift_equals_the_samplers_warp():
    t = jnp.asarray(np.linspace(0, 1, 6, dtype=np.float32))
    shifted = ResolutionShift()(t, jnp.full(6, 64 * 48))
    np.testing.assert_allclose(shifted, inference_times(5, [(128, 96)])[:, 0], atol=1e-6)


def test_time_laws():
    numbers = jnp.arange(2000)
    keys = jax.random.split(jax.random.key(0), len(numbers))
    narrow = Uniform(0.2, 0.4)(keys, numbers)
    assert narrow.min() >= 0.2 and narrow.max() < 0.4
    logistic = LogisticNormal(mean=0.5, std=0.1)(keys, numbers)
    assert abs(float(jnp.median(logistic)) - 1 / (1 + np.exp(-0.5))) < 0.01
    moved = jax.random.permutation(jax.random.key(1), numbers)
    np.testing.assert_array_equal(narrow[moved], Uniform(0.2, 0.4)(keys[moved], numbers[moved]))


def test_stratified_times_spread_any_run_of_samples():
    numbers = jnp.arange(7, 7 + 64)
    strata = np.asarray(StratifiedUniform(64)(jax.random.split(jax.random.key(0), 64), numbers))
    np.testing.assert_array_equal(np.sort(np.floor(strata * 64)), np.arange(64))
    for count in (2, 8, 16):
        run = strata[5 : 5 + count]
        np.testing.assert_array_equal(np.sort(np.floor(run * count)), np.arange(count))
    with pytest.raises(InputError, match="power of two"):
        StratifiedUniform(50)


def test_the_path_and_its_velocity_recover_both_ends():
    noise, data = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
    t = jnp.array([0.1, 0.5, 0.9])
    x, v = interpolate(noise, data, t), velocity_target(noise, data)
    np.testing.assert_allclose(predict_data(x, v, t), data, atol=1e-6)
    np.testing.assert_allclose(predict_noise(x, v, t), noise, atol=1e-6)
    np.testing.assert_array_equal(interpolate(noise, data, jnp.zeros(3)), noise)
