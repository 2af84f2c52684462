"""Int8 maps: close to what they round, in every shape that maps have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.mlp import SwiGLU
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.quantized import Int8Linear, quantize_linears
from mammoth_jax.layers.stack import scan_layers, stack_layers, unstack_layers
from tests.tiny_model import random_weights


def filled(module):
    return random_weights(module, 0, single_device_mesh())


def inputs(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def error(got: jax.Array, wanted: jax.Array) -> float:
    """Relative, in L2."""
    return float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("ins", "outs"), [(512, 96), ((8, 64), 48), (256, (4, 8))], ids=["plain", "many in", "many out"]
)
def test_a_map_is_rounded_by_less_than_one_percent(ins, outs):
    linear = filled(Linear(ins, outs, axes=((None,) * np.size(ins), (None,) * np.size(outs)), bias=True))
    x = inputs(2, 5, *np.atleast_1d(ins))
    got, wanted = Int8Linear(linear)(x), linear(x)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    assert 1e-4 < error(got, wanted) < 0.01
    assert Int8Linear(linear).bias is linear.bias is not None


def test_each_output_column_has_its_own_scale_so_that_none_is_lost_beside_a_larger_one():
    linear = filled(Linear(256, 3, axes=("embed", "mlp")))
    linear.kernel = linear.kernel.replace(linear.kernel[...] * jnp.asarray([1.0, 1e-4, 1e4]))
    x = inputs(64, 256)
    for column in range(3):
        assert error(Int8Linear(linear)(x)[:, column], linear(x)[:, column]) < 0.01


def test_a_column_of_zeros_stays_zero():
    assert (Int8Linear(Linear(4, 2, axes=("embed", "mlp")))(inputs(3, 4)) == 0).all()


def test_codes_are_within_half_a_step_and_use_the_whole_range():
    linear = filled(Linear(64, 16, axes=("embed", "mlp")))
    rounded = Int8Linear(linear)
    assert rounded.codes.dtype == jnp.int8 and rounded.scale.dtype == jnp.float32
    assert (jnp.max(jnp.abs(rounded.codes[...].astype(int)), axis=0) == 127).all()
    assert (jnp.abs(rounded.kernel - linear.kernel[...]) <= 0.501 * rounded.scale[...]).all()


def test_the_product_is_in_the_inputs_dtype_or_the_one_asked_for():
    linear = filled(Linear(256, 16, axes=("embed", "mlp"), bias=True))
    rounded, x = Int8Linear(linear), inputs(4, 256).astype(jnp.bfloat16)
    assert rounded(x).dtype == jnp.bfloat16
    scores = rounded(x, out_dtype=jnp.float32)
    assert scores.dtype == jnp.float32
    assert error(scores, linear(x.astype(jnp.float32))) < 0.015


def test_stacked_maps_are_rounded_layer_by_layer():
    stack = filled(stack_layers(lambda: SwiGLU(256, 256), 3))
    stack.gate.kernel = stack.gate.kernel.replace(
        stack.gate.kernel[...] * jnp.asarray([1.0, 0.01, 3.0])[:, None, None]
    )
    rounded = quantize_linears(stack)
    assert rounded.gate.codes.shape == (3, 256, 256) and rounded.gate.scale.shape == (3, 256)
    assert rounded.gate.codes.axes == ("layers", "embed", "mlp") and rounded.gate.scale.axes == (
        "layers",
        "mlp",
    )

    def run(layers):
        return scan_layers(lambda x, layer, _: (x, layer(x)), inputs(7, 256), layers)[1]

    got, wanted = run(rounded), run(stack)
    for layer in range(3):
        assert error(got[layer], wanted[layer]) < 0.02  # two roundings one behind the other
    np.testing.assert_allclose(run(unstack_layers(rounded)), got, rtol=1e-5, atol=1e-6)


def test_only_linears_are_replaced_and_the_module_itself_is_left_alone():
    class Block(nnx.Module):
        def __init__(self):
            self.norm = RMSNorm(8, eps=1e-6)
            self.maps = nnx.List([Linear(8, 8, axes=("embed", "mlp")), Linear(8, 4, axes=("embed", "mlp"))])

    block = Block()
    before = set(named_parameters(block))
    rounded = quantize_linears(block)
    assert set(named_parameters(block)) == before
    assert set(named_parameters(rounded)) == {
        "norm.scale", "maps.0.codes", "maps.0.scale", "maps.1.codes", "maps.1.scale",
    }  # fmt: skip
    assert rounded.norm.scale[...] is block.norm.scale[...]


def test_a_layer_taken_out_of_its_stack_is_refused():
    (layer,) = unstack_layers(stack_layers(lambda: Linear(4, 4, axes=("embed", "mlp")), 1))
    with pytest.raises(ValueError, match="round the stack"):
        Int8Linear(layer)
