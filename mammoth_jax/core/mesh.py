"""Device meshes with the axes ``data``, ``fsdp`` and ``tensor``."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mammoth_jax.core.errors import InputError

AXES = ("data", "fsdp", "tensor")


def parse_mesh(text: str) -> dict[str, int]:
    """``"data=1,fsdp=4"`` as sizes for every axis of :data:`AXES`; axes that are not named have size 1.

    Raises:
      InputError: an unknown axis, a size that is not a positive number, or an axis given twice.
    """
    sizes: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = item.partition("=")
        if name not in AXES:
            raise InputError(f"unknown mesh axis {name!r} in {text!r}; write e.g. data=1,fsdp=4,tensor=2")
        if name in sizes:
            raise InputError(f"mesh axis {name!r} is given twice in {text!r}")
        if not number.isdigit() or int(number) < 1:
            raise InputError(f"mesh axis {name!r} needs a positive size, got {number!r} in {text!r}")
        sizes[name] = int(number)
    return {axis: sizes.get(axis, 1) for axis in AXES}


def make_mesh(
    sizes: dict[str, int] | None = None,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """A mesh over ``devices`` (all of the process's backend by default); without sizes all devices are ``fsdp``.

    The axes are of the automatic kind: the compiler propagates shardings from the weights and from the constraints
    that the layers state (see ``core/README.md`` for why).

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    pool = list(devices if devices is not None else jax.devices())
    shape = sizes or {"data": 1, "fsdp": len(pool), "tensor": 1}
    want = int(np.prod([shape.get(axis, 1) for axis in AXES]))
    if want > len(pool) or (devices is not None and want != len(pool)):
        raise InputError(
            f"mesh {','.join(f'{a}={shape.get(a, 1)}' for a in AXES)} needs {want} devices, there are {len(pool)}"
        )
    grid = np.array(pool[:want]).reshape([shape.get(axis, 1) for axis in AXES])
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def single_device_mesh() -> Mesh:
    """The mesh of one device, on which every program of this project also runs."""
    return make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
