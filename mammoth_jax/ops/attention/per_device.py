"""How attention is divided over a mesh: the one place where kernels are wrapped in ``shard_map``.

Rows go over the mesh axes of the batch and heads over ``tensor``, by the sharding rules.  When the heads of keys do not
divide, one of three rules serves, the first that fits:

1. each device's query heads belong to one key/value head: keys and values are on every device, which takes its head;
2. the queries' length divides: each device takes a part of the queries, and all keys and values;
3. every device of the ``tensor`` axis computes the same.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Float
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask, Implementation


@dataclasses.dataclass(frozen=True)
class Division:
    """Mesh axes of each dimension (``None`` is all of it) and the sizes of those that ``shard_map`` takes over.

    ``heads_of_one`` says that keys are not divided and that each device takes the one key/value head of its queries.
    """

    sizes: tuple[tuple[str, int], ...]
    batch: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    kv_heads: tuple[str, ...] = ()
    length: tuple[str, ...] = ()
    heads_of_one: bool = False

    def count(self, axes: tuple[str, ...]) -> int:
        """Devices along mesh axes."""
        return math.prod(dict(self.sizes)[axis] for axis in axes)

    @property
    def trivial(self) -> bool:
        """Whether one device has everything, so that nothing needs wrapping."""
        return math.prod(size for _, size in self.sizes) <= 1

    def local(self, task: AttentionTask) -> AttentionTask:
        """The task of one device."""
        return dataclasses.replace(
            task,
            batch=task.batch // self.count(self.batch),
            query_length=task.query_length // self.count(self.length),
            heads=task.heads // self.count(self.heads),
            kv_heads=1 if self.heads_of_one else task.kv_heads // self.count(self.kv_heads),
            offset=task.offset or (task.causal and bool(self.length)),
        )


def divide(task: AttentionTask) -> Division:
    """The division of a whole task over the mesh that is set, if any."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return Division(())
    free = {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind != AxisType.Manual  # axes that an enclosing shard_map has taken are divided already
    }
    # between layers ``tensor`` may divide the tokens; here it divides heads, and every device has all tokens
    axes = ("batch", None, "heads", None)
    shape = (task.batch, task.query_length, task.heads, task.head_dim)
    batch, _, heads, _ = map(_names, current_rules().spec(axes, shape, free, move=False))
    axes = ("batch", None, "kv_heads", None)
    shape = (task.batch, task.key_length, task.kv_heads, task.head_dim)
    kv_heads = _names(current_rules().spec(axes, shape, free, move=False)[2])
    division = Division(tuple(free.items()), batch, heads, kv_heads)
    if heads == kv_heads and heads:
        return division
    wanted = tuple(axis for axis in current_rules().heads if free.get(axis, 1) > 1)
    devices = division.count(wanted)
    group = task.heads // task.kv_heads
    if heads and group % (task.heads // division.count(heads)) == 0:
        return dataclasses.replace(division, kv_heads=(), heads_of_one=True)
    if devices > 1 and task.query_length % devices == 0:
        return dataclasses.replace(division, heads=(), kv_heads=(), length=wanted)
    return dataclasses.replace(division, heads=(), kv_heads=())


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else entry


def run_per_device(
    implementation: Implementation,
    division: Division,
    query: Float[Array, "b s h e"],
    key: Float[Array, "b t k e"],
    value: Float[Array, "b t k e"],
    mask: AttentionMask,
    scale: float,
) -> Float[Array, "b s h e"]:
    """Runs an implementation on each device's part."""
    if division.trivial:
        return implementation(query, key, value, mask, scale)
    batch, length = division.batch or None, division.length or None
    queries = PartitionSpec(batch, length, division.heads or None)
    keys = PartitionSpec(batch, None, division.kv_heads or None)
    masks = AttentionMask(
        None if mask.query_segments is None else PartitionSpec(batch, length),  # type: ignore[arg-type]
        None if mask.key_segments is None else PartitionSpec(batch),  # type: ignore[arg-type]
        None if mask.query_offset is None else PartitionSpec(batch),  # type: ignore[arg-type]
        mask.causal,
    )
    group = query.shape[2] // key.shape[2]

    def local(query: Array, key: Array, value: Array, mask: AttentionMask) -> Array:
        if division.heads_of_one:
            mine = jax.lax.axis_index(division.heads) * query.shape[2] // group
            key, value = (jax.lax.dynamic_slice_in_dim(x, mine, 1, 2) for x in (key, value))
        if division.length and mask.causal:
            start = jax.lax.axis_index(division.length) * query.shape[1]
            given = 0 if mask.query_offset is None else mask.query_offset
            offset = jnp.broadcast_to(start + given, query.shape[:1])
            mask = dataclasses.replace(mask, query_offset=offset)
        return implementation(query, key, value, mask, scale)

    return jax.shard_map(
        local,
        in_specs=(queries, keys, keys, masks),
        out_specs=queries,
        axis_names={name for name, _ in division.sizes},
        check_vma=False,  # Pallas kernels do not say over which axes their results vary
    )(query, key, value, mask)
