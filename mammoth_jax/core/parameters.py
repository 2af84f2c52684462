"""Parameters with axis names, and modules seen as a flat table of named arrays.

Modules are Flax NNX modules used as plain pytrees: they go in and out of ``jax.jit`` as arguments and nothing mutates
them.  A parameter's name is its attribute path joined by dots, e.g. ``decoder.segments.1.attention.query.kernel``.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.initializers import ZEROS, Initializer, generator
from mammoth_jax.core.sharding import ShardingRules, named_sharding

M = TypeVar("M", bound=nnx.Module)


def param(
    shape: Sequence[int],
    axes: Sequence[str | None],
    init: Initializer = ZEROS,
    fans: tuple[int, int] = (1, 1),
) -> nnx.Param:
    """Declares a float32 parameter with one logical axis name a dimension (see ``core/sharding.py``).

    Building a module only declares its parameters, as zeros; :func:`initialize` or a checkpoint fills them.
    """
    if len(shape) != len(axes):
        raise ValueError(f"{shape=} and {axes=} differ in length")
    return nnx.Param(jnp.zeros(tuple(shape), jnp.float32), axes=tuple(axes), init=init, fans=fans)


def kernel_split(parameter: nnx.Param) -> tuple[int, int] | None:
    """How many leading axes of a linear map's kernel are layers, and how many after them inputs.

    ``None`` for whatever is no such kernel: norms, biases, tables, convolutions.
    """
    shape, (inputs, outputs) = tuple(parameter.shape), parameter.fans
    first = 1 if parameter.axes[:1] == ("layers",) else 0
    for last in range(first + 1, len(shape)):
        if math.prod(shape[first:last]) == inputs and math.prod(shape[last:]) == outputs:
            return first, last - first
    return None


def initial_value(name: str, parameter: nnx.Param, seed: int) -> np.ndarray:
    """The start value of a declared parameter, float32 on the host."""
    return parameter.init(generator(seed, name), parameter.shape, parameter.fans)


def named_parameters(module: nnx.Module) -> dict[str, nnx.Param]:
    """All parameters of a module (arrays or shapes), by dotted name, in a fixed order."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return dict(sorted((".".join(map(str, path)), leaf) for path, leaf in flat))


def with_parameters(module: M, values: Mapping[str, Any]) -> M:
    """A module of the same structure whose parameters are ``values``, by dotted name; all must be given.

    Raises:
      KeyError: a parameter without a value, or a value without a parameter.
    """
    known = named_parameters(module)
    if set(known) != set(values):
        missing, extra = sorted(set(known) - set(values)), sorted(set(values) - set(known))
        raise KeyError(f"parameters without a value: {missing[:5]}; values without a parameter: {extra[:5]}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(module)
    return jax.tree_util.tree_unflatten(structure, [values[_dotted(path)] for path, _ in leaves])


def _dotted(path: Sequence[Any]) -> str:
    parts = []
    for key in path:
        name = getattr(key, "name", getattr(key, "idx", getattr(key, "key", None)))
        if name != "value" or key is not path[-1]:
            parts.append(str(name))
    return ".".join(parts)


def abstract(build: Callable[[], M], dtype: Any = jnp.float32) -> M:
    """The module that ``build`` makes, with shapes in place of arrays; costs no memory and no compilation."""
    return jax.eval_shape(lambda: cast(build(), dtype))


def shardings(module: M, mesh: Mesh, rules: ShardingRules | None = None) -> M:
    """The module with each array replaced by its sharding on ``mesh``."""
    named = {
        name: named_sharding(mesh, p.axes, p.shape, rules) for name, p in named_parameters(module).items()
    }
    return with_parameters(module, named)


def initialize(
    build: Callable[[], M],
    seed: int,
    mesh: Mesh,
    dtype: Any = jnp.float32,
    rules: ShardingRules | None = None,
) -> M:
    """Random weights, one array at a time directly into its shards: no device holds more than its part."""
    module = abstract(build)
    values = {}
    for name, parameter in named_parameters(module).items():
        array = initial_value(name, parameter, seed).astype(dtype)
        sharding = named_sharding(mesh, parameter.axes, parameter.shape, rules)
        values[name] = jax.make_array_from_callback(array.shape, sharding, lambda index, x=array: x[index])
    return with_parameters(module, values)


def cast(module: M, dtype: Any) -> M:
    """The module with every floating-point array in ``dtype``."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, module)


def fingerprint(module: nnx.Module) -> str:
    """Twelve hexadecimal digits of all values, for records: equal for equal weights on any mesh, in one dtype."""
    arrays = {name: parameter[...] for name, parameter in named_parameters(module).items()}
    sums = _sums(arrays)
    lines = (f"{name} {x.dtype} {x.shape} {int(sums[name])}\n" for name, x in arrays.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


@jax.jit
def _sums(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _mixed(array) for name, array in arrays.items()}


def _mixed(array: jax.Array) -> jax.Array:
    """A 32-bit sum over every value's bits mixed with its place, which no order of summing changes."""
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, length in enumerate(array.shape):
        place = place * np.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = bits + place * np.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finaliser
        mixed = (mixed ^ mixed >> shift) * np.uint32(factor)
    return jnp.sum(mixed ^ mixed >> 16, dtype=jnp.uint32)


def num_parameters(module: nnx.Module) -> int:
    """Number of scalars in all parameters."""
    return sum(int(p.size) for p in named_parameters(module).values())
