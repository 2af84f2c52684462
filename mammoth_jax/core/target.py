"""Which platform a program is being compiled for."""

import jax


def target_platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``: of the mesh's devices, else of the default device.

    The mesh (``jax.set_mesh``) comes first, so that a program compiled ahead of time for a TPU topology on a machine
    without one is compiled as on a TPU.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
