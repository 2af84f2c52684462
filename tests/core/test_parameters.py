"""Modules as tables of named arrays: shapes only, sharded initialisation, replacement; keys by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import Normal
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import (
    abstract,
    fingerprint,
    initialize,
    named_parameters,
    num_parameters,
    param,
    with_parameters,
)
from mammoth_jax.core.precision import matmul_precision, parse_dtype
from mammoth_jax.core.presets import load_preset, preset_names, resolve_extends
from mammoth_jax.core.rng import named_key, row_keys


class Inner(nnx.Module):
    """A matrix."""

    def __init__(self):
        self.kernel = param((8, 4), ("embed", "mlp"), Normal(1.0))


class Outer(nnx.Module):
    """Two matrices in a list and a vector."""

    def __init__(self):
        self.layers = nnx.List([Inner(), Inner()])
        self.scale = param((3,), (None,))


def test_a_fingerprint_is_of_the_values_on_any_mesh():
    one = initialize(Outer, 3, single_device_mesh())
    sharded = initialize(Outer, 3, make_mesh({"data": 1, "fsdp": 4, "tensor": 2}))
    assert fingerprint(sharded) == fingerprint(one)
    assert fingerprint(initialize(Outer, 3, single_device_mesh())) == fingerprint(one)
    values = named_parameters(one)
    kernel = np.array(values["layers.0.kernel"][...])
    turned = {n: p[...] for n, p in values.items()} | {"layers.0.kernel": jnp.asarray(kernel[::-1])}
    swapped = with_parameters(one, turned)
    halves = initialize(Outer, 3, single_device_mesh(), jnp.bfloat16)
    assert len({fingerprint(one), fingerprint(swapped), fingerprint(halves)}) == 3


def test_names_are_attribute_paths_in_a_fixed_order():
    assert list(named_parameters(abstract(Outer))) == ["layers.0.kernel", "layers.1.kernel", "scale"]
    assert num_parameters(abstract(Outer)) == 8 * 4 * 2 + 3


def test_an_abstract_module_has_shapes_and_the_asked_dtype():
    kernel = named_parameters(abstract(Outer, jnp.bfloat16))["layers.0.kernel"]
    assert (kernel.shape, kernel.dtype) == ((8, 4), jnp.bfloat16)


def test_initialisation_is_the_same_on_any_mesh_and_lies_in_shards():
    one = named_parameters(initialize(Outer, 3, single_device_mesh()))
    eight = named_parameters(initialize(Outer, 3, make_mesh({"data": 1, "fsdp": 4, "tensor": 2})))
    for name in one:
        np.testing.assert_array_equal(np.asarray(one[name][...]), np.asarray(eight[name][...]))
    shards = eight["layers.0.kernel"][...].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 2)}


def test_replacement_wants_exactly_the_parameters():
    module = initialize(Outer, 0, single_device_mesh())
    values = {name: p[...] + 1 for name, p in named_parameters(module).items()}
    replaced = with_parameters(module, values)
    np.testing.assert_array_equal(replaced.layers[1].kernel[...], module.layers[1].kernel[...] + 1)
    with pytest.raises(KeyError, match="scale"):
        with_parameters(module, {k: v for k, v in values.items() if k != "scale"})
    with pytest.raises(KeyError, match="more"):
        with_parameters(module, {**values, "more": values["scale"]})


def test_keys_depend_on_name_step_and_root_only():
    root = jax.random.key(0)

    def bits(key):
        return tuple(np.asarray(jax.random.key_data(key)).ravel())

    keys = [
        named_key(root, "a"),
        named_key(root, "b"),
        named_key(root, "a", 1),
        named_key(jax.random.key(1), "a"),
    ]
    assert len({bits(key) for key in keys}) == 4
    assert bits(named_key(root, "a")) == bits(keys[0])


def test_a_rows_key_ignores_the_rest_of_the_batch():
    alone = jax.random.key_data(row_keys(jnp.array([7]), "x"))[0]
    among = jax.random.key_data(row_keys(jnp.array([3, 7, 9]), "x"))[1]
    np.testing.assert_array_equal(alone, among)


def test_number_formats_by_name():
    assert parse_dtype(None) == jnp.float32  # on a CPU
    assert parse_dtype("bfloat16") == jnp.bfloat16
    with pytest.raises(InputError, match="unknown dtype 'fp8'"):
        parse_dtype("fp8")
    with pytest.raises(InputError, match="unknown precision 'low'"):
        matmul_precision("low")


def test_presets_are_found_by_name_and_extended():
    assert {"nano", "dev", "preview"} <= set(preset_names())
    base = load_preset("nano")
    assert resolve_extends({"extends": "nano", "vae": {"scaling_factor": 9}})["vae"]["scaling_factor"] == 9
    assert load_preset("nano") == base
    with pytest.raises(InputError, match="known presets: dev, nano"):
        load_preset("huge")
