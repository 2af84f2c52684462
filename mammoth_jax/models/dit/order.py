"""How condition, references and target are put together into the joint sequence, and the target found again."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from mammoth_jax.core.types import Array, Int, Shaped
from mammoth_jax.ops.take_tokens import inverse_index, take_tokens


class Order(Protocol):
    """An order of the joint sequence."""

    def join(self, *parts: Shaped[Array, "b _ *rest"]) -> Shaped[Array, "b s *rest"]:
        """The joint sequence of the parts: condition, references (if there are any), target."""
        ...

    def target(self, joint: Shaped[Array, "b s *rest"]) -> Shaped[Array, "b n *rest"]:
        """The target's tokens."""
        ...


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """The parts one after the other, with masked gaps; the target is the last ``num_target`` tokens."""

    num_target: int

    def join(self, *parts: Shaped[Array, "b _ *rest"]) -> Shaped[Array, "b s *rest"]:
        return jnp.concatenate(parts, axis=1)

    def target(self, joint: Shaped[Array, "b s *rest"]) -> Shaped[Array, "b n *rest"]:
        return joint[:, -self.num_target :]


@dataclasses.dataclass(frozen=True)
class Packed:
    """Sample after sample without gaps.

    ``index`` points into the parts laid side by side (``num_parts`` tokens, the target's ``num_target`` last), -1 where
    the joint row is padding.  Each token occurs once.
    """

    index: Int[Array, "b s"]
    num_parts: int
    num_target: int

    def join(self, *parts: Shaped[Array, "b _ *rest"]) -> Shaped[Array, "b s *rest"]:
        return take_tokens(jnp.concatenate(parts, axis=1), self.index)

    def target(self, joint: Shaped[Array, "b s *rest"]) -> Shaped[Array, "b n *rest"]:
        return take_tokens(joint, inverse_index(self.index, self.num_parts)[:, -self.num_target :])


jax.tree_util.register_dataclass(Packed, ["index"], ["num_parts", "num_target"])
