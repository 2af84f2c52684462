"""Which implementation runs where: one table, and a scoped override."""

import contextlib
import dataclasses

import jax

from mammoth_jax.core.errors import InputError
from mammoth_jax.ops.attention.chunked import CACHE_SIZED, CHUNKED
from mammoth_jax.ops.attention.library import CUDNN, SPLASH, TOKAMAX
from mammoth_jax.ops.attention.pallas_tpu import PALLAS_TPU
from mammoth_jax.ops.attention.reference import REFERENCE
from mammoth_jax.ops.attention.task import AttentionTask, Implementation

IMPLEMENTATIONS: dict[str, Implementation] = {
    each.name: each for each in (REFERENCE, CHUNKED, CACHE_SIZED, PALLAS_TPU, SPLASH, CUDNN, TOKAMAX)
}

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Rule:
    """On ``platform``, up to ``score_bytes`` of scores (float32, one device): the first of ``names`` that can."""

    platform: str
    score_bytes: float
    names: tuple[str, ...]


ANY_SIZE = float("inf")

# Small scores: written out, one fused soft-max and no loop; they fit in caches, and programs compile fastest.
# CPU (its ms with gradients, float32; reference, chunked, cache_sized): 4 rows of 1,024, segments of about 15,
# causal, 822, 484, 51; 4 of 1,408 in segments of about 90, full, 1401, 434, 130; one of 2,048 without segments, 4 heads
# of 128, causal, 1239, 718, 344; 8 of 256 without segments 71, 55, 37.
# In bfloat16 (4 of 1,536, segments of 60 to 150; cache_sized, and with its products in bfloat16): 33, 41; full 41, 78.
TABLE = (
    Rule("cpu", 2 * MIB, ("reference",)),
    Rule("cpu", ANY_SIZE, ("cache_sized",)),
    Rule("gpu", 4 * MIB, ("reference",)),
    Rule("gpu", ANY_SIZE, ("cudnn", "chunked")),
    Rule("tpu", 4 * MIB, ("reference",)),
    Rule("tpu", ANY_SIZE, ("pallas_tpu", "chunked")),
)

_override = jax.make_user_context(None)  # a value that programs are compiled for: another one compiles again


def use_attention(implementation: str | Implementation) -> contextlib.AbstractContextManager[None]:
    """``with use_attention("chunked"):`` programs called (compiled) inside use this implementation, whatever the table.

    Args:
      implementation: a name of the table, or an object such as ``PallasTPU(interpret=True)``.

    Raises:
      InputError: an unknown name.
    """
    return _override(_named(implementation))


def choose(task: AttentionTask, implementation: str | Implementation | None = None) -> Implementation:
    """The implementation asked for, else that of :func:`use_attention`, else what the table says.

    Raises:
      InputError: the one asked for is unknown or lacks something that the task needs.
    """
    asked = _override.value if implementation is None else _named(implementation)
    if asked is not None:
        lacks = asked.lacks(task)
        if lacks is not None:
            able = [name for name, each in IMPLEMENTATIONS.items() if each.lacks(task) is None]
            raise InputError(f"attention {asked.name!r} {lacks}; {', '.join(able)} can")
        return asked
    for rule in TABLE:
        if rule.platform == task.platform and task.score_bytes <= rule.score_bytes:
            for name in rule.names:
                if IMPLEMENTATIONS[name].lacks(task) is None:
                    return IMPLEMENTATIONS[name]
    return CHUNKED


def _named(implementation: str | Implementation) -> Implementation:
    if not isinstance(implementation, str):
        return implementation
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"attention {implementation!r} is unknown; known: {', '.join(IMPLEMENTATIONS)}")
    return IMPLEMENTATIONS[implementation]
