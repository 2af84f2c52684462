"""A plain matrix product an expert, over as many tokens of each row as the packer reserved for it."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels, swiglu
from mammoth_jax.ops.routed_ffn.per_device import route_per_device, take_rows


@dataclasses.dataclass(frozen=True)
class Split:
    """``capacities[e]`` tokens of each row go through expert ``e``: static sizes, no kernel of its own.

    Pays where the packer fills every row with about the same share of each expert.  The packer checks each batch with
    :meth:`check` before it hands it out, so that no batch with more tokens reaches a device; should one, the tokens
    over the capacity come out as NaN and stop the run: none is dropped in silence.
    """

    capacities: tuple[int, ...]
    reads_stacks: ClassVar[bool] = False

    def check(self, expert: np.ndarray) -> None:
        """Refuses a batch ``expert [b, s]`` (on the host) that does not fit.

        Raises:
          InputError: a row has more tokens of an expert than its capacity, or an expert without one.
        """
        if expert.size and not 0 <= expert.min() <= expert.max() < len(self.capacities):
            raise InputError(
                f"expert ids {expert.min()} to {expert.max()}: there are {len(self.capacities)} capacities"
            )
        for number, capacity in enumerate(self.capacities):
            most = int((expert == number).sum(axis=1).max(initial=0))
            if most > capacity:
                raise InputError(
                    f"a row has {most} tokens of expert {number}, more than its capacity {capacity}; "
                    "pack fewer of them in a row or raise the capacity"
                )

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`.

        Raises:
          InputError: not one capacity an expert, or together less than a row.
        """
        tokens = expert.shape[1] * expert.shape[2]
        if len(self.capacities) != len(experts) or sum(self.capacities) < tokens:
            raise InputError(
                f"split capacities {self.capacities}: need one for each of {len(experts)} experts, together at least "
                f"the {tokens} tokens of a row"
            )
        return route_per_device(self._hard, x, experts, expert, weights)

    def _hard(
        self, x: Float[Array, "b s d"], experts: Sequence[ExpertKernels], expert: Int[Array, "b s"]
    ) -> Float[Array, "b s d"]:
        own = expert[..., None] == jnp.arange(len(experts))
        counts = jnp.sum(own, axis=1)
        starts = jnp.cumsum(counts, axis=1) - counts
        order = jnp.argsort(expert, axis=1, stable=True)
        slots = [starts[:, e, None] + jnp.arange(c)[None] for e, c in enumerate(self.capacities)]
        filled = [jnp.arange(c)[None] < counts[:, e, None] for e, c in enumerate(self.capacities)]
        at = jnp.minimum(jnp.concatenate(slots, axis=1), expert.shape[1] - 1)
        token = jnp.take_along_axis(order, at, axis=1)  # which token a slot holds
        is_filled = jnp.concatenate(filled, axis=1)[
            ..., None
        ]  # the rest holds somebody's token and counts for nothing

        capacity = jnp.asarray(self.capacities)
        first = jnp.cumsum(capacity) - capacity
        rank = jnp.take_along_axis(jnp.cumsum(own, axis=1), expert[..., None], axis=2)[..., 0] - 1
        slot = first[expert] + jnp.minimum(rank, capacity[expert] - 1)  # which slot holds a token

        blocks = take_rows(x, token, slot)
        edges = np.cumsum(self.capacities)[:-1].tolist()
        results = [
            swiglu(rows, kernels)
            for rows, kernels in zip(jnp.split(blocks, edges, axis=1), experts, strict=True)
        ]
        out = take_rows(jnp.where(is_filled, jnp.concatenate(results, axis=1), 0), slot, token)
        return jnp.where((rank < capacity[expert])[..., None], out, jnp.nan)
