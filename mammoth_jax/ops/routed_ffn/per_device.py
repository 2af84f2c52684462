"""Routing on each device's own tokens: what the implementations that move tokens have in common.

Tokens are never sent to another device.  Each device orders those that it has and applies its slice of every expert's
width; the sum over the slices is one ``psum``.  Weights that are sharded over the batch's axes are gathered on entry.
Where the rules divide a row's tokens over the axis that divides the width, the row is gathered before and its sums are
scattered afterwards.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels

HardRouting = Callable[
    [Float[Array, "b s d"], Sequence[ExpertKernels], Int[Array, "b s"]], Float[Array, "b s d"]
]
"""Applies to each token its one expert; sees no mesh."""


def route_per_device(
    hard: HardRouting,
    x: Float[Array, "b s d"],
    experts: Sequence[ExpertKernels],
    expert: Int[Array, "b s k"],
    weights: Float[Array, "b s k"] | None,
) -> Float[Array, "b s d"]:
    """Runs ``hard`` on the tokens of each device, a token with ``k`` experts as ``k`` tokens."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return _combine(hard, x, experts, expert, weights)
    sizes = dict(mesh.shape)
    tokens = current_rules().spec(("batch", "length", None), x.shape, sizes, move=False)
    width, tall = (
        _slices(kernel, at, sizes) for kernel, at in ((experts[0].gate, -1), (experts[0].down, -2))
    )
    summed = width[-1]
    if summed is not None and tokens[1] not in (None, summed):
        tokens = PartitionSpec(tokens[0], None, None)
    divided = None if summed is None else tokens[1]
    slices = ExpertKernels(width, width, tall, None if experts[0].layer is None else PartitionSpec())  # type: ignore[arg-type]

    def local(x: Array, experts: Sequence[ExpertKernels], expert: Array, weights: Array | None) -> Array:
        if divided is not None:  # all tokens of a row meet every slice of the width
            x, expert, weights = jax.tree.map(
                lambda y: jax.lax.all_gather(y, divided, axis=1, tiled=True), (x, expert, weights)
            )
        out = _combine(hard, x, experts, expert, weights)
        if divided is not None:
            return jax.lax.psum_scatter(out, divided, scatter_dimension=1, tiled=True)
        return out if summed is None else jax.lax.psum(out, summed)

    return jax.shard_map(
        local,
        in_specs=(tokens, [slices] * len(experts), tokens, tokens),
        out_specs=tokens,
        check_vma=False,  # Pallas kernels do not say over which axes their results vary
    )(x, list(experts), expert, weights)


def held_as_applied(experts: Sequence[ExpertKernels]) -> bool:
    """Whether each device holds of the experts' stacks what it applies and no less: nothing is gathered then."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    held = (
        (experts[0].gate, -1, ("layers", "embed", "mlp")),
        (experts[0].down, -2, ("layers", "mlp", "embed")),
    )
    return all(
        current_rules().spec(axes, stack.shape, sizes) == _slices(stack, at, sizes)
        for stack, at, axes in held
    )


def _slices(kernel: Float[Array, "*l d f"], width: int, sizes: dict[str, int]) -> PartitionSpec:
    """A device's slice of the expert's width, which is dimension ``width`` of a kernel or of a stack of them."""
    axes: list[str | None] = [None] * kernel.ndim
    axes[width] = "mlp"
    return current_rules().spec(axes, kernel.shape, sizes, move=False)


def _combine(
    hard: HardRouting,
    x: Float[Array, "b s d"],
    experts: Sequence[ExpertKernels],
    expert: Int[Array, "b s k"],
    weights: Float[Array, "b s k"] | None,
) -> Float[Array, "b s d"]:
    b, s, k = expert.shape
    y = hard(x if k == 1 else jnp.repeat(x, k, axis=1), experts, expert.reshape(b, s * k))
    if weights is None:
        return y
    parts = y.reshape(b, s, k, -1).astype(jnp.float32) * weights[..., None].astype(jnp.float32)
    return jnp.sum(parts, axis=2).astype(x.dtype)


@jax.custom_vjp
def take_rows(
    x: Float[Array, "b n d"], index: Int[Array, "b m"], inverse: Int[Array, "b n"]
) -> Float[Array, "b m d"]:
    """Rows ``index`` of ``x`` where row ``i`` of ``x`` goes to ``inverse[i]`` and nowhere else that counts.

    The gradient is then a gather too, in place of a scatter; rows of the result that no row of ``x`` calls its own
    must be masked by the caller.
    """
    return jnp.take_along_axis(x, index[..., None], axis=1)


def _take_rows_forward(x: Array, index: Array, inverse: Array) -> tuple[Array, tuple[Array, Array]]:
    return take_rows(x, index, inverse), (index, inverse)


def _take_rows_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, None, None]:
    index, inverse = residuals
    return take_rows(gradient, inverse, index), None, None


take_rows.defvjp(_take_rows_forward, _take_rows_backward)
