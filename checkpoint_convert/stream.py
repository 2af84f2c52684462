"""Weights from a source into our arrays, one (stacked) array at a time.

Host memory holds about one stacked array beyond what is on the devices, whatever the model's size.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from checkpoint_convert.reported import reported
from checkpoint_convert.rules import Entry, Rule, Shape, check_parts, expand
from checkpoint_convert.source import TensorSource, problems, shapes
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.core.sharding import ShardingRules, named_sharding

M = TypeVar("M", bound=nnx.Module)


def by_target(entries: Iterable[Entry], targets: Iterable[str]) -> dict[str, list[Entry]]:
    """The entries of each target, in layer order, for the given targets only."""
    out: dict[str, list[Entry]] = {name: [] for name in targets}
    for entry in entries:
        if entry.target in out:
            out[entry.target].append(entry)
    return {name: sorted(group, key=lambda e: e.layer or 0) for name, group in out.items()}


def held_dtype(group: Sequence[Entry], source: TensorSource) -> np.dtype:
    """The narrowest dtype that holds every tensor of a target exactly."""
    specs = source.specs
    dtype: Any = specs[group[0].source].dtype
    for entry in group[1:]:
        dtype = jnp.promote_types(dtype, specs[entry.source].dtype)
    return np.dtype(dtype)


def read_stack(source: TensorSource, group: Sequence[Entry], shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Our array of the given shape from the tensors of its entries, layer by layer."""
    if group[0].layer is None:
        return group[0].transform.forward(source.read(group[0].source), shape).astype(dtype, copy=False)
    stack = np.empty(shape, dtype)
    for entry in group:
        stack[entry.layer] = entry.transform.forward(source.read(entry.source), shape[1:])
    return stack


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """The array on its devices, each shard copied on its own; returns when the copies are done."""
    placed = jax.make_array_from_callback(
        array.shape, sharding, lambda index: np.ascontiguousarray(array[index])
    )
    return jax.block_until_ready(placed)


def fit(
    module: nnx.Module, rules: Iterable[Rule], source: TensorSource
) -> tuple[dict[str, list[Entry]], Mapping[str, nnx.Param]]:
    """The entries of each of the module's parameters, and the parameters, after checking that all fits.

    Raises:
      InputError: one error that lists every unmapped, missing, doubled and misshapen tensor.
    """
    entries = expand(rules)
    parameters = named_parameters(module)
    targets = {name: tuple(p.shape) for name, p in parameters.items()}
    check_parts(entries, shapes(source), targets, source.where, problems(source))
    return by_target(entries, parameters), parameters


def load_onto(
    module: M,
    rules: Iterable[Rule],
    source: TensorSource,
    mesh: Mesh,
    dtype: Any = None,
    sharding: ShardingRules | None = None,
) -> M:
    """The (abstract) module with the source's weights, each array in its target sharding on the mesh.

    Parts that the source holds and the module lacks are left unread.  ``dtype`` casts (None keeps the
    source's).

    Raises:
      InputError: one error that lists every unmapped, missing, doubled and misshapen tensor.
    """
    groups, parameters = fit(module, rules, source)
    return with_parameters(module, read_onto(groups, parameters, source, mesh, dtype, sharding))


def read_onto(
    groups: Mapping[str, Sequence[Entry]],
    parameters: Mapping[str, nnx.Param],
    source: TensorSource,
    mesh: Mesh,
    dtype: Any = None,
    sharding: ShardingRules | None = None,
) -> dict[str, jax.Array]:
    """The arrays of the given groups, which fit, each in its target sharding on the mesh."""
    values: dict[str, jax.Array] = {}
    for name, group in reported(groups.items(), len(groups), "loading"):
        param = parameters[name]
        kept = held_dtype(group, source) if dtype is None else np.dtype(dtype)
        stack = read_stack(source, group, tuple(param.shape), kept)
        values[name] = put(stack, named_sharding(mesh, param.axes, param.shape, sharding))
        del stack
    return values
