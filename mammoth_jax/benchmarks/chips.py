"""TPU chips: what one computes, holds and moves at most, by their makers' figures, and the slices named after them."""

import dataclasses
import math

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of one chip, in units of one.

    Attributes:
        name: as slices are named, ``v5p`` in ``v5p:2x2x1``.
        flops: bf16 floating-point operations a second.
        hbm_bandwidth: bytes a second.
        hbm: bytes that a program may use; the compiler keeps some for itself (its own figure, by which it refuses).
        ici_bandwidth: bytes a second into the chip over all its links (half of the two-way figure).
        configuration: the compiler's name of how the cores of a chip form devices, where its default is not JAX's.
        dimensions: of the interconnect: a slice is ``AxB`` or ``AxBxC`` chips.
    """

    name: str
    flops: float
    hbm_bandwidth: float
    hbm: float
    ici_bandwidth: float
    configuration: str | None = None
    dimensions: int = 2


# Sources: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} (peak compute, HBM and two-way ICI bandwidth a chip;
# the page of tpu7x also has v5p and v6e).  v2, v3: Jouppi et al. 2020, "A domain-specific supercomputer"; links of v3
# and v4: Jouppi et al. 2023, "TPU v4".  HBM: what libtpu 0.0.42 says is available, times the devices of a chip.
_CHIPS = (
    Chip("v2", 46e12, 700e9, 2 * 7.48 * 2**30, 4 * 62e9),
    Chip("v3", 123e12, 900e9, 2 * 15.48 * 2**30, 4 * 70e9),
    Chip("v4", 275e12, 1200e9, 30.75 * 2**30, 6 * 50e9, "megacore", 3),
    Chip("v5e", 197e12, 819e9, 15.75 * 2**30, 200e9),
    Chip("v5p", 459e12, 2765e9, 95.74 * 2**30, 600e9, None, 3),
    Chip("v6e", 918e12, 1638e9, 31.25 * 2**30, 400e9),
    Chip("tpu7x", 2307e12, 7380e9, 2 * 94.75 * 2**30, 600e9, None, 3),
)
CHIPS = {chip.name: chip for chip in _CHIPS}


_DEVICE_KINDS = {  # JAX's names of devices, and how many of them a chip has
    "TPU v2": ("v2", 2),
    "TPU v3": ("v3", 2),
    "TPU v4": ("v4", 1),
    "TPU v5 lite": ("v5e", 1),
    "TPU v5e": ("v5e", 1),
    "TPU v5": ("v5p", 1),
    "TPU v5p": ("v5p", 1),
    "TPU v6 lite": ("v6e", 1),
    "TPU v6e": ("v6e", 1),
    "TPU7x": ("tpu7x", 2),
}
_GPU_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}  # dense bf16 of the SXM modules, NVIDIA's data sheets


def device_peak_flops(kind: str) -> float | None:
    """bf16 operations a second of one device, by JAX's name of it; ``None`` where the name is not known."""
    if kind in _DEVICE_KINDS:
        chip, devices = _DEVICE_KINDS[kind]
        return CHIPS[chip].flops / devices
    return next((flops for name, flops in _GPU_FLOPS.items() if name in kind), None)


def chip_of(topology: str) -> Chip:
    """The chip of a slice such as ``v5p:2x2x1``.

    Raises:
      InputError: no such chip, or the rest of the name is not a shape; the message lists the chips.
    """
    name, colon, shape = topology.partition(":")
    sides = shape.split("x")
    if name not in CHIPS or not colon or not all(side.isdecimal() and int(side) for side in sides):
        known = ", ".join(f"{c.name}:{'x'.join('ABC'[: c.dimensions])}" for c in _CHIPS)
        raise InputError(f"unknown topology {topology!r}; known: {known}, e.g. v5p:2x2x1 or v5e:2x4")
    if len(sides) != CHIPS[name].dimensions:
        want = "x".join("ABC"[: CHIPS[name].dimensions])
        raise InputError(f"topology {topology!r}: slices of {name} are named {name}:{want}")
    return CHIPS[name]


def num_chips(topology: str) -> int:
    """Chips of a slice.

    Raises:
      InputError: see :func:`chip_of`.
    """
    chip_of(topology)
    return math.prod(int(side) for side in topology.partition(":")[2].split("x"))


def num_devices(topology: str) -> int:
    """Devices of a slice as JAX counts them; some chips are two.

    Raises:
      InputError: see :func:`chip_of`.
    """
    name = chip_of(topology).name
    return num_chips(topology) * next((n for chip, n in _DEVICE_KINDS.values() if chip == name), 1)
