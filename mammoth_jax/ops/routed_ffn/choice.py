"""Which implementation runs where: one table, and a scoped override."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import jax

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.both import Both
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.megablox import Megablox
from mammoth_jax.ops.routed_ffn.pallas_tpu import PallasTPU
from mammoth_jax.ops.routed_ffn.ragged import Ragged


@runtime_checkable
class Implementation(Protocol):
    """A way to compute :func:`mammoth_jax.ops.routed_ffn.routed_ffn`; a frozen dataclass.

    ``reads_stacks`` says whether it takes kernels in stacks of layers; others are given the layer's own.
    """

    reads_stacks: ClassVar[bool]

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """Without ``weights`` ``k`` is 1."""
        ...


IMPLEMENTATIONS: dict[str, Implementation] = {
    "both": Both(),
    "ragged": Ragged(),
    "megablox": Megablox(),
    "pallas_tpu": PallasTPU(),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """On ``platform``, from ``min_tokens`` tokens a device on, ``name`` is used.

    ``in_stacks`` is used where kernels lie in stacks of layers, which is in passes without gradients.
    """

    platform: str
    min_tokens: int
    name: str
    in_stacks: str


# On TPU few tokens are bound by reading the weights, which `both` does once without a sort.  For many the compiler's
# figures decide: jax 0.10 compiles ragged_dot's weight gradient to dense products over all tokens.
TABLE = (
    Rule("tpu", 256, "ragged" if jax.__version_info__ >= (0, 11) else "megablox", "pallas_tpu"),
    Rule("tpu", 0, "both", "both"),
    Rule("gpu", 0, "both", "both"),
    Rule("cpu", 0, "both", "both"),
)

_override = jax.make_user_context(None)  # a value that programs are compiled for: another one compiles again


def use_routed_ffn(implementation: str | Implementation) -> contextlib.AbstractContextManager[None]:
    """``with use_routed_ffn("ragged"):`` programs called (compiled) inside use this implementation, whatever the table.

    Args:
      implementation: ``both``, ``ragged``, ``megablox`` or ``pallas_tpu``, or an object such as
        ``Split((1024, 3072))``.

    Raises:
      InputError: an unknown name.
    """
    if isinstance(implementation, str):
        if implementation not in IMPLEMENTATIONS:
            raise InputError(f"routed FFN {implementation!r} is unknown; known: {', '.join(IMPLEMENTATIONS)}")
        implementation = IMPLEMENTATIONS[implementation]
    return _override(implementation)


def chosen_implementation(num_tokens: int, in_stacks: bool = False) -> Implementation:
    """The override, else what the table says for the platform that is compiled for and ``num_tokens`` a device."""
    if _override.value is not None:
        return _override.value
    platform = target_platform()
    for rule in TABLE:
        if rule.platform == platform and num_tokens >= rule.min_tokens:
            return IMPLEMENTATIONS[rule.in_stacks if in_stacks else rule.name]
    return IMPLEMENTATIONS["both"]
