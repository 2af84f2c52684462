import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.ops.patchify import patchify, unpatchify


def test_values_of_a_patch_are_ordered_row_column_channel():
    x = jnp.arange(4 * 6 * 3).reshape(1, 4, 6, 3).astype(jnp.float32)
    tokens = patchify(x, 2)
    assert tokens.shape == (1, 6, 12)
    np.testing.assert_array_equal(tokens[0, 4].reshape(2, 2, 3), x[0, 2:4, 2:4])


def test_unpatchify_undoes_it_and_drops_padding():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(jnp.float32)
    padded = jnp.pad(patchify(x, 2), ((0, 0), (0, 5), (0, 0)), constant_values=-1)
    np.testing.assert_array_equal(unpatchify(padded, 2, 3, 2), x)


def test_a_side_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="patches of 2"):
        patchify(jnp.zeros((1, 3, 4, 1)), 2)
