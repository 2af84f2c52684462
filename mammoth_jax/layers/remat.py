"""What of a stack of layers is kept for the backward pass, and what is computed again.

A stack without a policy keeps everything.  With :class:`Remat` each layer is computed again from its input, which alone
is kept (one activation a layer); values that are named inside a layer (``jax.ad_checkpoint.checkpoint_name``) can be
kept beside it, or moved to the host's memory meanwhile.  Gradients are the same whatever the policy.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters

M = TypeVar("M", bound=nnx.Module)

LAYER_INPUT, ATTENTION = "layer_input", "attention"
"""Names of values: what a layer is given, and what attention gives before its output map."""
NAMES = (LAYER_INPUT, ATTENTION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remat:
    """Layers are computed again, but for the values that are named.

    Attributes:
        save: kept on the device.
        offload: kept in the host's memory, fetched when the backward pass comes to their layer.
    """

    save: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.save, *self.offload):
            if name not in NAMES:
                raise InputError(f"remat: no value is named {name!r}; known: {', '.join(NAMES)}")
        twice = sorted(set(self.save) & set(self.offload))
        if twice:
            raise InputError(f"remat: {twice} cannot be both saved and offloaded")

    def __call__(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """``body(carry, ...)`` of a scan over layers, computed again in the backward pass."""

        def named(carry: Any, *rest: Any) -> Any:
            return body(jax.tree.map(_name_input, carry), *rest)

        # inside a scan nothing is shared between the passes that the compiler could merge again
        return jax.checkpoint(named, prevent_cse=False, policy=self._policy())

    def _policy(self) -> Callable[..., Any] | None:
        policies = jax.checkpoint_policies
        if self.offload:
            return policies.save_and_offload_only_these_names(
                names_which_can_be_saved=list(self.save),
                names_which_can_be_offloaded=list(self.offload),
                offload_src="device",
                offload_dst="pinned_host",
            )
        return policies.save_only_these_names(*self.save) if self.save else None


def _name_input(x: jax.Array) -> jax.Array:
    return checkpoint_name(x, LAYER_INPUT) if jnp.issubdtype(x.dtype, jnp.floating) else x


def with_remat(module: M, policy: Remat | None) -> M:
    """A module all of whose stacks of layers follow the policy (``None``: they keep everything)."""
    copy = jax.tree.map(lambda x: x, module)
    for stack in _stacks(copy):
        stack.remat = policy  # type: ignore[attr-defined]
    return copy


def remat_of(stack: Any) -> Remat | None:
    """The policy of a stack, or of a layer of one."""
    return getattr(stack, "remat", None)


def _stacks(module: nnx.Module) -> Iterator[nnx.Module]:
    """The modules whose parameters all have a leading layer axis, outermost."""
    parameters = named_parameters(module).values()
    if parameters and all(p.axes[:1] == ("layers",) for p in parameters):
        yield module
        return
    for value in vars(module).values():
        for part in value if isinstance(value, nnx.List) else (value,):
            if isinstance(part, nnx.Module):
                yield from _stacks(part)
