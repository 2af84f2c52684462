"""Changes of resolution against loops and hand-computed values."""

import jax.numpy as jnp
import numpy as np

from mammoth_jax.ops.resample import depth_to_space, resize_bilinear, upsample_nearest


def test_depth_to_space_puts_channel_groups_into_rows_then_columns():
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 8)).astype(np.float32)
    y = np.asarray(depth_to_space(jnp.asarray(x), 2))
    assert y.shape == (2, 4, 6, 2)
    for row in range(4):
        for col in range(6):
            group = 2 * (row % 2) + col % 2
            np.testing.assert_array_equal(y[:, row, col], x[:, row // 2, col // 2, 2 * group : 2 * group + 2])


def test_nearest_upsampling_repeats_cells():
    x = jnp.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample_nearest(x, 2), np.asarray(x).repeat(2, 1).repeat(2, 2))


def test_bilinear_resize_interpolates_between_cell_centres_without_antialiasing():
    x = jnp.arange(8.0).reshape(1, 8, 1, 1)
    y = np.asarray(resize_bilinear(x, 7, 1))[0, :, 0, 0]
    np.testing.assert_allclose(y, (np.arange(7) + 0.5) * 8 / 7 - 0.5, atol=1e-6)
    spike = np.asarray(resize_bilinear(jnp.zeros((1, 8, 1, 1)).at[0, 4].set(1.0), 7, 1))[0, :, 0, 0]
    assert np.count_nonzero(spike) <= 2
