"""Segments as runs, the form in which packed kernels of libraries want them: where each starts and how long it is."""

import dataclasses

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Runs:
    """The first ``m`` runs of equal segments in each row; entries past a row's last run are -1, their segment 0."""

    start: Int[Array, "b m"]
    length: Int[Array, "b m"]
    segment: Int[Array, "b m"]
    count: Int[Array, " b"]
    """All runs of a row, also those beyond ``m``."""


def find_runs(segments: Int[Array, "b length"], most: int) -> Runs:
    """Runs of segments other than 0."""
    before = jnp.pad(segments, ((0, 0), (1, 0)))[:, :-1]
    starts = (segments > 0) & (segments != before)
    count = jnp.sum(starts, axis=1)
    start = jax.vmap(lambda row: jnp.nonzero(row, size=most, fill_value=-1)[0])(starts)
    there = start >= 0
    number = jnp.where(segments > 0, jnp.cumsum(starts, axis=1) - 1, most)
    length = jax.vmap(lambda row: jnp.bincount(row, length=most))(jnp.minimum(number, most))
    segment = jnp.take_along_axis(segments, jnp.maximum(start, 0), axis=1)
    return Runs(
        start.astype(jnp.int32),
        jnp.where(there, length, -1).astype(jnp.int32),
        jnp.where(there, segment, 0),
        count,
    )


def are_packed(queries: Runs, keys: Runs, causal: bool) -> Bool[Array, ""]:
    """Whether run ``i`` of the queries attends to run ``i`` of the keys and to nothing else, in every row.

    With ``causal`` indices count from the start of a run, so that both must start at the same place.
    """
    most = queries.segment.shape[1]
    fit = (queries.count <= most) & (keys.count <= most)
    same = jnp.all(queries.segment == keys.segment, axis=1)
    if causal:
        same = same & jnp.all(queries.start == keys.start, axis=1)
    return jnp.all(fit & same & _distinct(queries.segment))


def are_only_padded(queries: Runs, keys: Runs) -> Bool[Array, ""]:
    """Whether every row is one run from its start and padding after it."""
    return jnp.all(
        (queries.count <= 1)
        & (keys.count <= 1)
        & (queries.start[:, 0] <= 0)
        & (keys.start[:, 0] <= 0)
        & (queries.segment[:, 0] == keys.segment[:, 0])
    )


def _distinct(segment: Int[Array, "b m"]) -> Bool[Array, " b"]:
    """Whether no segment has two runs."""
    most = segment.shape[1]
    equal = (segment[:, :, None] == segment[:, None, :]) & (segment[:, :, None] > 0)
    return ~jnp.any(equal & ~jnp.eye(most, dtype=bool), axis=(1, 2))
