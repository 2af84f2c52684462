"""The perceptual distance's gradient by the reconstruction, in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import cast, initialize
from mammoth_jax.models.lpips import LPIPS
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures


def test_the_gradient_is_that_of_the_value():
    """The step is small beside the distance to most ReLUs' corners; the few that turn cost some accuracy."""
    network = initialize(LPIPS, 0, single_device_mesh())
    with jax.enable_x64(True):
        network = cast(network, jnp.float64)
        a, b = (pictures(1, 16, 16, 3, seed=seed, dtype=np.float64) for seed in (0, 1))
        assert_gradient(lambda x: jnp.sum(network(x, b)), a, step=1e-7, rtol=1e-4, directions=1)
