"""Chips and the slices named after them."""

import pytest

from mammoth_jax.benchmarks.chips import CHIPS, chip_of, device_peak_flops
from mammoth_jax.core.errors import InputError


@pytest.mark.parametrize(
    "topology, name", [("v5p:2x2x1", "v5p"), ("v5e:2x4", "v5e"), ("tpu7x:4x4x4", "tpu7x"), ("v2:2x2", "v2")]
)
def test_slice_is_named_after_its_chip(topology, name):
    assert chip_of(topology) is CHIPS[name]


@pytest.mark.parametrize(
    "topology", ["v9:2x2", "v5p-128", "v5p", "v5litepod:2x2", "v5p:2xax1", "v5p:0x2x1", "", "v5e:"]
)
def test_unknown_slice_lists_those_known(topology):
    with pytest.raises(InputError) as error:
        chip_of(topology)
    for name in CHIPS:
        assert f"{name}:A" in str(error.value)


@pytest.mark.parametrize("topology, form", [("v5p:2x2", "v5p:AxBxC"), ("v5e:2x2x1", "v5e:AxB")])
def test_shape_has_as_many_sides_as_the_interconnect(topology, form):
    with pytest.raises(InputError, match=form):
        chip_of(topology)


def test_units_are_plausible():
    """A slip of a thousand in one figure would show here: operations for each byte of HBM lie between 50 and 1000."""
    for chip in CHIPS.values():
        assert 50 < chip.flops / chip.hbm_bandwidth < 1000
        assert 2 < chip.hbm_bandwidth / chip.ici_bandwidth < 15
        assert 8 * 2**30 < chip.hbm < 200 * 2**30


def test_devices_are_known_by_the_names_that_jax_gives_them():
    assert device_peak_flops("TPU v5 lite") == CHIPS["v5e"].flops
    assert device_peak_flops("TPU7x") == CHIPS["tpu7x"].flops / 2  # two devices a chip
    assert device_peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert device_peak_flops("cpu") is None
