"""How much is asked for, and calls of jitted functions with shapes in place of arrays."""

import dataclasses
import math
from collections.abc import Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mammoth_jax.core.sharding import current_rules
from mammoth_jax.models.backbone.cache import CacheFormat, KVCache
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.costs import Cost
from mammoth_jax.pipelines.step_formats import WeightFormat


@dataclasses.dataclass(frozen=True)
class Workload:
    """How much is asked for; sizes are (width, height) in pixels, grids (columns, rows) of visual tokens."""

    size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    batch: int = 1
    steps: int = 50
    prompt_tokens: int = 256
    answer_tokens: int = 512
    references: int = 1
    dtype: str = "bfloat16"
    decode_weights: WeightFormat = "model"
    cache: CacheFormat = "model"


@dataclasses.dataclass(frozen=True)
class Call:
    """A jitted function of a pipeline with its arguments.

    Attributes:
        name: as it is printed.
        program: the jitted function.
        args, arrays: its arguments by place and by name, with shapes for arrays.
        static: arguments that it is compiled for.
        cost: what it needs, all devices together.
        steps: trips of its loop that ends by its data.
        cache: bytes on a device of a cache that it makes for itself, of which the caller sees nothing.
        kept: results of earlier calls that stay in memory meanwhile without being its arguments.
    """

    name: str
    program: Any
    args: tuple[Any, ...]
    arrays: Mapping[str, Any]
    static: Mapping[str, Any]
    cost: Cost
    steps: int | None = None
    cache: int = 0
    kept: tuple[Any, ...] = ()


Task = Generator[Call, Any, None]
"""Yields calls and is sent what each returns: shapes, with the shardings that the compiler gave them."""


def shapes(tree: Any) -> Any:
    """A tree of host arrays as shapes, which the compiler may place as it likes."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def integers(*shape: int) -> jax.ShapeDtypeStruct:
    """An int32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def cache_bytes(like: KVCache, config: MammothConfig, mesh: Mesh, rows: int, slots: int) -> int:
    """Bytes on each device of a cache of ``rows`` of ``slots`` each, held and sharded as the decoder holds ``like``."""
    leaves = jax.tree.leaves((like.keys, like.values))
    each = sum(x.size * x.dtype.itemsize for x in leaves) // (like.length.shape[0] * like.capacity)
    shape = (rows, config.backbone.decoder.num_kv_heads)
    spec = current_rules().spec(("batch", "kv_heads"), shape, dict(mesh.shape), move=False)
    shards = math.prod(shape) // math.prod(NamedSharding(mesh, spec).shard_shape(shape))
    return rows * slots * each // shards
