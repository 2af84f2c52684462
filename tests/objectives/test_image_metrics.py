"""PSNR and SSIM against plain references; use of codes from counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.objectives.image_metrics import code_perplexity, code_usage, psnr, ssim


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, window by window, in float64."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(a.shape[2]):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                x, y = (p[i : i + 11, j : j + 11, channel].astype(np.float64) for p in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_psnr_is_that_of_each_picture_and_does_not_wrap_around():
    target = np.full((3, 4, 4, 3), 250, np.uint8)
    picture = target.copy()
    picture[0], picture[1] = 240, 255
    np.testing.assert_allclose(
        psnr(jnp.asarray(picture), jnp.asarray(target)),
        [10 * np.log10(255**2 / 100), 10 * np.log10(255**2 / 25), np.inf],
        rtol=1e-6,
    )


def test_ssim_equals_the_plain_definition():
    a = pixels(2, 13, 15, 3)
    noise = np.random.default_rng(1).normal(0, 30, a.shape)
    b = np.clip(a + noise, 0, 255).astype(np.uint8)
    found = jax.jit(ssim)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, [plain_ssim(x, y) for x, y in zip(a, b, strict=True)], rtol=1e-5)
    assert 0 < found[0] < 0.999


def test_ssim_of_equal_pictures_is_one_and_of_flat_ones_compares_brightness():
    a = jnp.asarray(pixels(1, 12, 12, 3))
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-6)
    dark, light = jnp.full((1, 12, 12, 1), 100, jnp.uint8), jnp.full((1, 12, 12, 1), 110, jnp.uint8)
    c1 = (0.01 * 255) ** 2
    np.testing.assert_allclose(ssim(dark, light), (2 * 11000 + c1) / (10000 + 12100 + c1), rtol=1e-6)


def test_a_picture_smaller_than_the_window_is_refused():
    small = jnp.zeros((1, 10, 40, 3), jnp.uint8)
    with pytest.raises(InputError, match=r"40x10 pixels.*at least 11"):
        ssim(small, small)


def test_usage_and_perplexity_count_codes():
    counts = jnp.asarray([3.0, 3.0, 0.0, 0.0])
    assert code_usage(counts) == 0.5
    np.testing.assert_allclose(code_perplexity(counts), 2, rtol=1e-6)
    np.testing.assert_allclose(code_perplexity(jnp.asarray([5.0, 0.0])), 1, rtol=1e-6)
    uneven = np.array([0.75, 0.25])
    expected = np.exp(-(uneven * np.log(uneven)).sum())
    np.testing.assert_allclose(code_perplexity(jnp.asarray([6.0, 2.0])), expected, rtol=1e-6)
