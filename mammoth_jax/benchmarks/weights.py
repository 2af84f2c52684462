"""Random weights drawn on the device, for models whose weights would take minutes to draw on the host.

They are no model's start (``core/initializers.py``): only their sizes and that they are random matter here.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.core.sharding import named_sharding
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.loading import LoadedModel, byte_words

M = TypeVar("M", bound=nnx.Module)


def initialize_on_device(build: Callable[[], M], seed: int, mesh: Mesh, dtype: Any = jnp.float32) -> M:
    """Every scale 1; else Gaussian with the variance that keeps a product's size, each array made in its shards."""
    module = abstract(build)
    values = {}
    for index, (name, parameter) in enumerate(named_parameters(module).items()):
        sharding = named_sharding(mesh, parameter.axes, parameter.shape)
        if name.endswith("scale"):
            make = functools.partial(jnp.ones, parameter.shape, dtype)
            values[name] = jax.jit(make, out_shardings=sharding)()
        else:
            fan_in = parameter.fans[0] if parameter.fans[0] > 1 else parameter.shape[-1]
            draw = _drawer(parameter.shape, jnp.dtype(dtype).name, sharding)
            values[name] = draw(jax.random.fold_in(jax.random.key(seed), index), fan_in**-0.5)
    return with_parameters(module, values)


@functools.cache
def _drawer(shape: tuple[int, ...], dtype: str, sharding: jax.sharding.NamedSharding) -> Callable[..., Any]:
    """One compiled program a shape."""
    return jax.jit(
        lambda key, spread: (spread * jax.random.normal(key, shape, dtype)).astype(dtype),
        out_shardings=sharding,
    )


def random_parts(preset: str, parts: frozenset[str], *, dtype: Any, mesh: Mesh, seed: int = 0) -> LoadedModel:
    """Some parts of a preset's architecture with such weights, and a byte-level tokenizer.

    Raises:
      InputError: no such preset.
    """
    config = MammothConfig.from_preset(preset)
    tokenizer, settings = byte_words(config)
    model = initialize_on_device(lambda: Mammoth(config, parts=parts), seed, mesh, dtype)
    return LoadedModel(model, mesh, tokenizer, settings, None)
