"""Fills a module from released-name tensors that are already in memory (small models, test vectors)."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from checkpoint_convert.rules import Rule, check, expand
from mammoth_jax.core.parameters import named_parameters, with_parameters

M = TypeVar("M", bound=nnx.Module)


def load_arrays(module: M, rules: Iterable[Rule], tensors: Mapping[str, np.ndarray], where: str) -> M:
    """``module`` (abstract or not) with the weights of ``tensors``; the rules must cover both sides exactly.

    Raises:
      InputError: one error that lists every tensor that does not fit; ``where`` names the source in it.
    """
    entries = expand(rules)
    targets = {name: tuple(p.shape) for name, p in named_parameters(module).items()}
    check(entries, {name: tuple(x.shape) for name, x in tensors.items()}, targets, where)
    values: dict[str, np.ndarray] = {}
    for entry in entries:
        shape = targets[entry.target]
        array = entry.transform.forward(tensors[entry.source], entry.layer_shape(shape))
        if entry.layer is None:
            values[entry.target] = array
        else:
            stacked = values.setdefault(entry.target, np.empty(shape, array.dtype))
            stacked[entry.layer] = array
    return with_parameters(module, {name: jnp.asarray(x) for name, x in values.items()})


def released_tensors(
    module: nnx.Module, rules: Iterable[Rule], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The given released tensors out of a module (or of its gradients, which have the same structure)."""
    entries = {entry.source: entry for entry in expand(rules)}
    parameters = named_parameters(module)
    out: dict[str, np.ndarray] = {}
    for name in names:
        entry = entries[name]
        array = np.asarray(parameters[entry.target][...])
        out[name] = np.ascontiguousarray(
            entry.transform.backward(array if entry.layer is None else array[entry.layer])
        )
    return out
