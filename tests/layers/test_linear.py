"""Affine maps on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.core.sharding import named_sharding, parse_rules, use_rules
from mammoth_jax.layers.linear import Linear


class TwoOfAKind(nnx.Module):
    """Two maps whose outputs are divided alike, so that the second meets its input divided as its output."""

    def __init__(self):
        self.first = Linear(16, 64, axes=("embed", "mlp"), bias=True)
        self.second = Linear(64, 64, axes=("embed", "mlp"), bias=True)

    def __call__(self, x):
        return self.second(jnp.sin(self.first(x)))


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1))
def gradients(model, x, cotangent):
    return jnp.sum(model(x) * cotangent)


@pytest.mark.parametrize("rules", ["", "embed=fsdp+data"])
def test_gradients_through_maps_divided_alike_are_those_of_one_device(rules):
    # Without the constraint on a product's input, XLA's gradient of x has its rows exchanged between devices.
    random = np.random.default_rng(0)
    x, cotangent = (random.standard_normal((8, 16, d)).astype(np.float32) for d in (16, 64))
    want = gradients(initialize(TwoOfAKind, 0, single_device_mesh()), x, cotangent)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    with jax.set_mesh(mesh), use_rules(parse_rules(rules)):
        rows = jax.device_put(x, named_sharding(mesh, ("batch", None, None), x.shape))
        divided = jax.device_put(cotangent, named_sharding(mesh, ("batch", None, "mlp"), cotangent.shape))
        got = gradients(initialize(TwoOfAKind, 0, mesh), rows, divided)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()))
