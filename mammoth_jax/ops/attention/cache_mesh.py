"""How work over a cache is divided over a mesh: rows over the batch's axes, heads over the key/value heads'."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from mammoth_jax.core.sharding import current_rules


def on_each_device(
    run: Callable[..., Any],
    rows_and_heads: tuple[int, int],
    specs: Callable[[PartitionSpec], tuple[Any, Any]],
) -> Callable[..., Any]:
    """``run`` on each device's rows and heads; ``run`` itself where one device has everything.

    Args:
      run: the work, with nothing that crosses rows or heads.
      rows_and_heads: rows and key/value heads of the whole cache; what does not divide is on every device.
      specs: from the partition of (rows, heads) those of the arguments and of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind != AxisType.Manual  # axes that an enclosing shard_map has taken are divided already
    }
    if math.prod(free.values()) <= 1:
        return run
    heads = current_rules().spec(("batch", "kv_heads"), rows_and_heads, free, move=False)
    arguments, result = specs(heads)
    return jax.shard_map(
        run,
        in_specs=arguments,
        out_specs=result,
        axis_names=set(free),
        check_vma=False,  # Pallas kernels do not say over which axes their results vary
    )
