"""The routed feed-forward layer that models call, whatever runs underneath."""

from collections.abc import Sequence

import jax

from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.choice import chosen_implementation
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.per_device import held_as_applied


def routed_ffn(
    x: Float[Array, "b s d"],
    experts: Sequence[ExpertKernels],
    expert: Int[Array, "b s"] | Int[Array, "b s k"],
    weights: Float[Array, "b s k"] | None = None,
) -> Float[Array, "b s d"]:
    """Sum over a token's ``k`` experts of ``weights * expert(x)``; with ``expert [b, s]`` its one expert alone.

    Exact: every token goes through its own experts, whatever their counts.  Which tokens go where is an input of the
    compiled program.  Kernels are cast to the dtype of ``x``; ``weights`` act in float32.  Kernels in stacks of layers
    are for passes without gradients.

    Raises:
      ValueError: shapes that do not fit, or several experts a token without weights.
    """
    if expert.ndim == 2:
        expert = expert[..., None]
    if expert.shape[:2] != x.shape[:2] or (weights is not None and weights.shape != expert.shape):
        raise ValueError(f"{x.shape=}, {expert.shape=} and weights do not name the same tokens")
    if weights is None and expert.shape[2] != 1:
        raise ValueError(f"{expert.shape[2]} experts a token need weights")
    in_stacks = experts[0].layer is not None and held_as_applied(experts)
    implementation = chosen_implementation(expert.size // _num_token_shards(x.shape), in_stacks)
    if not (in_stacks and implementation.reads_stacks):
        experts = [jax.tree.map(lambda kernel: kernel.astype(x.dtype), kernels.own()) for kernels in experts]
    return implementation(x, experts, expert, weights)


def _num_token_shards(shape: Sequence[int]) -> int:
    """Over how many devices the mesh divides the tokens."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    shards = 1
    for axes in current_rules().spec(("batch", "length", None), shape, sizes, move=False):
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            shards *= sizes[axis]
    return shards
