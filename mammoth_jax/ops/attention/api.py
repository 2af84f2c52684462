"""The attention that layers call, whatever runs underneath."""

from jax.ad_checkpoint import checkpoint_name

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.attention.per_device import divide, run_per_device
from mammoth_jax.ops.attention.reference import REFERENCE
from mammoth_jax.ops.attention.table import choose
from mammoth_jax.ops.attention.task import AttentionMask, AttentionTask, Implementation


def attention(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b t k e"],
    value: Float[Array, "b t k e"],
    *,
    query_segments: Int[Array, "b s"] | None = None,
    key_segments: Int[Array, "b t"] | None = None,
    causal: bool = False,
    query_offset: Int[Array, " b"] | None = None,
    scale: float | None = None,
    implementation: str | Implementation | None = None,
) -> Float[Array, "b s h e"]:
    """Soft-max attention with grouped heads: query head ``i`` reads key/value head ``i // (h / k)``.

    A query attends to the keys of its own segment; segment 0 is padding, which attends to nothing and gives zeros, with
    zero gradients.  Without segments everything is one segment.  ``causal`` compares indices within the row: query
    ``i`` sees key ``j`` if ``query_offset + i >= j``, where the offset (0 by default) is the index of the row's first
    query among its keys, for a prefill that goes on.  ``scale`` defaults to ``e ** -0.5``.  The soft-max is in float32.

    ``implementation`` names one instead of the table's (``table.py``); :func:`use_attention` does so for a program.

    Raises:
      InputError: sizes that do not fit together; segments of one side only; an offset without ``causal``; a named
        implementation that lacks something that is asked of it.
    """
    task = _task(query, key, value, query_segments, key_segments, causal, query_offset)
    division = divide(task)
    chosen = choose(division.local(task), implementation)
    mask = AttentionMask(query_segments, key_segments, query_offset, causal)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if chosen is REFERENCE:  # plain products, which the compiler divides by itself
        out = chosen(query, key, value, mask, factor)
    else:
        out = run_per_device(chosen, division, query, key, value, mask, factor)
    return checkpoint_name(out, "attention")  # for policies of what to keep (layers/remat.py)


def _task(
    query: Array,
    key: Array,
    value: Array,
    query_segments: Array | None,
    key_segments: Array | None,
    causal: bool,
    query_offset: Array | None,
) -> AttentionTask:
    (b, s, h, e), (t, k) = query.shape, key.shape[1:3]
    if key.shape != (b, t, k, e) or value.shape != key.shape or h % k:
        raise InputError(
            f"attention of queries {query.shape} with keys {key.shape} and values {value.shape}: expected "
            "[b, s, h, e] and twice [b, t, k, e] where k divides h"
        )
    if (query_segments is None) != (key_segments is None):
        raise InputError("attention: give segments for both queries and keys, or for neither")
    if query_offset is not None and not causal:
        raise InputError(
            "attention: query_offset says where queries lie among their keys; it needs causal=True"
        )
    return AttentionTask(
        platform=target_platform(),
        batch=b,
        query_length=s,
        key_length=t,
        heads=h,
        kv_heads=k,
        head_dim=e,
        dtype=query.dtype.name,
        causal=causal,
        segments=query_segments is not None,
        offset=query_offset is not None,
    )
