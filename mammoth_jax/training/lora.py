"""Low-rank adapters (Hu et al. 2022, section 4.1): the change of a kernel as a product of two thin matrices.

    W + alpha / rank A B        W [*inputs, *outputs], A [*inputs, rank], B [rank, *outputs]

A stack of layers has a leading layer axis in all three.  Only A and B are trained.  The kernels that run are put
together from them inside the step, before the model sees any: modules are plain trees of parameters, so nothing below
knows of it.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.initializers import FanInUniform
from mammoth_jax.core.parameters import initial_value, kernel_split, param
from mammoth_jax.core.sharding import named_sharding
from mammoth_jax.core.types import Array, Float

Named = dict[str, Array]
"""Arrays by dotted parameter name; a kernel's factors are its name with a suffix."""

A, B = ".lora_a", ".lora_b"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters as a configuration asks for them.

    Of the kernels of linear maps that an optimiser group names, those are adapted whose names contain a match of one
    of ``patterns`` (regular expressions); everything else is frozen.  A kernel's change is scaled by ``alpha / rank``.
    """

    patterns: tuple[str, ...] = (r"\.kernel$",)
    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise InputError(f"lora: rank {self.rank}, alpha {self.alpha}: expected 1 or more, and above 0")
        if not self.patterns:
            raise InputError("lora.patterns: expected one or more regular expressions over parameter names")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"lora.patterns: {pattern!r} is not a regular expression: {error}"
                ) from error

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True, eq=False)
class Adapters:
    """The adapters of one model.

    Attributes:
        kernels: names of the kernels that have one.
        declared: every factor by name, as a shape with its axes.
        scale: of all.
    """

    kernels: tuple[str, ...]
    declared: Mapping[str, nnx.Param]
    scale: float

    @classmethod
    def of(cls, config: LoRA, parameters: Mapping[str, nnx.Param], trainable: Collection[str]) -> "Adapters":
        """The adapters that a configuration asks for.

        Args:
          config: which kernels.
          parameters: of the model, shapes or arrays.
          trainable: names that may be adapted.

        Raises:
          InputError: a pattern that no such kernel matches.
        """
        splits = {n: s for n in trainable if (s := kernel_split(parameters[n])) is not None}
        for pattern in config.patterns:
            if not any(re.search(pattern, name) for name in splits):
                raise InputError(
                    f"lora.patterns: no kernel of the optimizer's groups matches {pattern!r}; the names of all "
                    "parameters are listed by: mammoth-jax info"
                )
        chosen = sorted(n for n in splits if any(re.search(p, n) for p in config.patterns))
        return cls(
            tuple(chosen),
            {
                key: factor
                for name in chosen
                for key, factor in _factors(name, parameters[name], splits[name], config.rank).items()
            },
            config.scale,
        )

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The optimiser group of every factor, from those of the parameters.

        Raises:
          InputError: a group without adapters.
        """
        found = {name + suffix: labels[name] for name in self.kernels for suffix in (A, B)}
        for group in sorted(set(labels.values()) - set(found.values())):
            raise InputError(
                f"optimizer group {group!r}: no kernel of it has an adapter; add a pattern to lora.patterns or leave "
                "the group out"
            )
        return found

    def start(self, seed: int, mesh: Mesh) -> Named:
        """The factors before the first step, in their shards: A uniform within ``1 / sqrt(inputs)``, B zero."""
        values = {}
        for name, factor in self.declared.items():
            array = initial_value(name, factor, seed)
            place = named_sharding(mesh, factor.axes, array.shape)
            values[name] = jax.make_array_from_callback(array.shape, place, lambda index, x=array: x[index])
        return values

    def merge(self, values: Mapping[str, Array]) -> Named:
        """The parameters that run; see :func:`merge`."""
        return merge(values, self.scale)


@dataclasses.dataclass(frozen=True, eq=False)
class AdapterWeights:
    """Trained adapters: factors by name (``KERNEL.lora_a``, ``KERNEL.lora_b``), rank and alpha."""

    factors: Named
    rank: int
    alpha: float

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels that they change."""
        return [name.removesuffix(A) for name in self.factors if name.endswith(A)]

    def merged(self, values: Mapping[str, Array]) -> Named:
        """Arrays by name, those that have an adapter changed by it; each in its dtype and its place.

        The kernels that are changed are given away, one after the other: devices need not have room for both models.
        """
        scale = jnp.float32(self.alpha / self.rank)
        out = dict(values)
        for name in self.kernels:
            if name in out:
                change = jax.jit(_merged, donate_argnums=0, out_shardings=out[name].sharding)
                out[name] = change(out[name], self.factors[name + A], self.factors[name + B], scale)
        return out


def _merged(kernel: Array, a: Array, b: Array, scale: Array) -> Array:
    return merged_kernel(kernel, a, b, scale).astype(kernel.dtype)


def merge(values: Mapping[str, Array], scale: float) -> Named:
    """Parameters with factors beside them as the parameters that run: float32 where there is an adapter."""
    out = {}
    for name, x in values.items():
        if name.endswith((A, B)):
            continue
        adapted = name + A in values
        out[name] = merged_kernel(x, values[name + A], values[name + B], scale) if adapted else x
    return out


def merged_kernel(
    kernel: Float[Array, "..."],
    a: Float[Array, "... r"],
    b: Float[Array, "..."],
    scale: Float[Array, ""] | float,
) -> Float[Array, "..."]:
    """``kernel + scale a b`` in float32, for ``kernel`` ``[layers?, *inputs, *outputs]``."""
    layers = tuple(range(a.ndim + b.ndim - 2 - kernel.ndim))
    change = jax.lax.dot_general(
        a.astype(jnp.float32),
        b.astype(jnp.float32),
        (((a.ndim - 1,), (len(layers),)), (layers, layers)),
        precision=jax.lax.Precision.HIGHEST,
    )
    return kernel.astype(jnp.float32) + scale * change


def _factors(name: str, kernel: nnx.Param, split: tuple[int, int], rank: int) -> dict[str, nnx.Param]:
    """A and B of a kernel as shapes; each lies on a mesh as the kernel's own axes do."""
    layers, inputs = split
    shape, axes = tuple(kernel.shape), tuple(kernel.axes)
    last = layers + inputs

    def declare() -> dict[str, nnx.Param]:
        fans = (kernel.fans[0], rank)
        return {
            name + A: param((*shape[:last], rank), (*axes[:last], None), FanInUniform(), fans),
            name + B: param((*shape[:layers], rank, *shape[last:]), (*axes[:layers], None, *axes[last:])),
        }

    return jax.eval_shape(declare)
