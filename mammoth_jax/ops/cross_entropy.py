"""Cross entropy of hidden states against heads, in blocks of the vocabulary: no ``[tokens, vocabulary]`` array exists.

The backward pass computes each block's scores again.  A block runs over all tokens of a device, so that the gradient of
a head's column is complete after its block and is written once; only the hidden states' gradient is accumulated.

On a mesh the tokens stay with their device (``batch`` axes) and a head's columns are divided over ``tensor``: what
crosses are a maximum, two sums and the hidden states' gradient.  The part of a head that is sharded over a batch axis
is gathered, and its gradient scattered, block by block.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Float, Int

Carry = TypeVar("Carry")

SCORES_IN_BLOCK = 2**26
"""Scores that a block may hold at once, on one device (256 MiB in float32)."""


def cross_entropy(
    hidden: Float[Array, "n d"],
    heads: Sequence[Float[Array, "d _"]],
    labels: Int[Array, " n"],
    *,
    num_columns: Sequence[int] | None = None,
    block: int | None = None,
) -> Float[Array, " n"]:
    """``-log softmax(hidden @ concatenate(heads))[labels]`` of each token, in float32.

    Scores, sums and gradients are accumulated in float32; products take the dtype of ``hidden``, to which the heads are
    cast block by block.  A head's gradient has the head's dtype.

    Args:
      hidden: final-normed states.
      heads: kernels whose columns, one head after another, are the joint vocabulary.
      labels: columns of the joint vocabulary; a negative one is ignored: loss and gradient 0.
      num_columns: how many columns of each head are vocabulary; those after them are padding, which gets neither
        probability nor gradient, and labels do not count.  By default all.
      block: columns to score at once; by default a power of two from :data:`SCORES_IN_BLOCK` and the tokens.
    """
    columns = tuple(num_columns or (head.shape[1] for head in heads))
    if len(columns) != len(heads) or any(c > head.shape[1] for c, head in zip(columns, heads, strict=False)):
        raise ValueError(f"{num_columns=} do not fit heads of {[head.shape for head in heads]}")
    layout = _layout(hidden, heads, columns, block)
    return _cross_entropy(hidden, tuple(heads), labels, layout)


@dataclasses.dataclass(frozen=True)
class _Head:
    """Where a head's columns are: how many, on all devices and on one; how many are vocabulary; its first joint column;
    mesh axes of its two dimensions.
    """

    width: int
    local_width: int
    num_columns: int
    first: int
    rows_over: tuple[str, ...]
    columns_over: tuple[str, ...]

    @property
    def spec(self) -> PartitionSpec:
        return PartitionSpec(self.rows_over or None, self.columns_over or None)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the arrays lie on the mesh, and the block size; static."""

    tokens_over: tuple[str, ...]
    heads: tuple[_Head, ...]
    block: int
    on_mesh: bool

    def run(self, body: Callable, in_specs: tuple, out_specs: object) -> Callable:
        """``body`` on each device's part."""
        if not self.on_mesh:
            return body
        return jax.shard_map(body, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    @property
    def tokens(self) -> PartitionSpec:
        return PartitionSpec(self.tokens_over or None)


def _layout(hidden: Array, heads: Sequence[Array], columns: tuple[int, ...], block: int | None) -> _Layout:
    mesh = jax.sharding.get_abstract_mesh()
    on_mesh = not (mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual)
    sizes = dict(mesh.shape) if on_mesh else {}

    def axes(names: tuple[str | None, ...], array: Array) -> list[tuple[str, ...]]:
        spec = current_rules().spec(names, array.shape, sizes, move=False)
        return [(a,) if isinstance(a, str) else tuple(a or ()) for a in spec]

    placed, first = [], 0
    for head, count in zip(heads, columns, strict=True):
        rows_over, columns_over = axes(("embed", "vocab"), head)
        width = head.shape[1]
        local = width // math.prod(sizes[a] for a in columns_over)
        placed.append(_Head(width, local, count, first, rows_over, columns_over))
        first += count
    tokens_over = axes(("batch", None), hidden)[0]
    local_tokens = hidden.shape[0] // math.prod(sizes[a] for a in tokens_over)
    fitting = 2 ** max(7, int(math.log2(SCORES_IN_BLOCK / max(local_tokens, 1))))
    return _Layout(tokens_over, tuple(placed), block or fitting, on_mesh)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _cross_entropy(hidden: Array, heads: tuple[Array, ...], labels: Array, layout: _Layout) -> Array:
    return _forward(hidden, heads, labels, layout)[0]


def _forward(
    hidden: Array, heads: tuple[Array, ...], labels: Array, layout: _Layout
) -> tuple[Array, tuple[Array, tuple[Array, ...], Array, Array]]:
    """Losses, and what the backward pass needs: the inputs and each token's log of the sum."""

    def body(hidden: Array, heads: tuple[Array, ...], labels: Array) -> tuple[Array, Array]:
        n = hidden.shape[0]
        tops, sums, picks = [], [], []
        for head, kernel in zip(layout.heads, heads, strict=True):

            def visit(carry, start, width, head=head, kernel=kernel):
                top, total, picked = carry
                scores, columns = _scores(hidden, _gather(kernel, start, width, head, hidden), start, head)
                grown = jnp.maximum(top, jnp.max(scores, axis=1))
                total = total * jnp.exp(top - grown) + jnp.sum(jnp.exp(scores - grown[:, None]), axis=1)
                picked = picked + jnp.sum(jnp.where(columns == labels[:, None], scores, 0.0), axis=1)
                return grown, total, picked

            zeros = jnp.zeros((n,), jnp.float32)
            top, total, picked = _over_blocks(
                visit, (zeros + _LOWEST, zeros, zeros), kernel.shape[1], layout.block
            )
            if head.columns_over:
                highest = jax.lax.pmax(top, head.columns_over)
                total = jax.lax.psum(total * jnp.exp(top - highest), head.columns_over)
                top, picked = highest, jax.lax.psum(picked, head.columns_over)
            tops.append(top)
            sums.append(total)
            picks.append(picked)
        top = functools.reduce(jnp.maximum, tops)
        total = sum(s * jnp.exp(t - top) for s, t in zip(sums, tops, strict=True))
        log_sum = top + jnp.log(total)
        return jnp.where(labels >= 0, log_sum - sum(picks), 0.0), log_sum

    specs = (layout.tokens, tuple(head.spec for head in layout.heads), layout.tokens)
    losses, log_sum = layout.run(body, specs, (layout.tokens, layout.tokens))(hidden, heads, labels)
    return losses, (hidden, heads, labels, log_sum)


def _backward(
    layout: _Layout, residuals: tuple[Array, tuple[Array, ...], Array, Array], gradient: Array
) -> tuple[Array, tuple[Array, ...], None]:
    def body(
        hidden: Array, heads: tuple[Array, ...], labels: Array, log_sum: Array, gradient: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        share = jnp.where(labels >= 0, gradient.astype(jnp.float32), 0.0)[:, None]
        to_hidden: dict[tuple[str, ...], Array] = {}  # by the axes over which it is still to be summed
        to_heads = []
        for head, kernel in zip(layout.heads, heads, strict=True):

            def visit(carry, start, width, head=head, kernel=kernel):
                to_hidden, to_kernel = carry
                block = _gather(kernel, start, width, head, hidden)
                scores, columns = _scores(hidden, block, start, head)
                chance = jnp.exp(scores - log_sum[:, None]) - (columns == labels[:, None])
                slope = (share * chance).astype(hidden.dtype)
                to_hidden = to_hidden + jnp.einsum(
                    "nv,dv->nd", slope, block, preferred_element_type=jnp.float32
                )
                part = jnp.einsum("nd,nv->dv", hidden, slope, preferred_element_type=jnp.float32)
                part = _scatter(part, head, layout).astype(kernel.dtype)
                return to_hidden, jax.lax.dynamic_update_slice_in_dim(to_kernel, part, start, axis=1)

            so_far = to_hidden.get(head.columns_over, jnp.zeros(hidden.shape, jnp.float32))
            carry = (so_far, jnp.zeros(kernel.shape, kernel.dtype))
            to_hidden[head.columns_over], to_kernel = _over_blocks(
                visit, carry, kernel.shape[1], layout.block
            )
            to_heads.append(to_kernel)
        parts = [jax.lax.psum(part, axes) if axes else part for axes, part in to_hidden.items()]
        return functools.reduce(jnp.add, parts).astype(hidden.dtype), tuple(to_heads)

    kernels = tuple(head.spec for head in layout.heads)
    specs = (layout.tokens, kernels, layout.tokens, layout.tokens, layout.tokens)
    to_hidden, to_heads = layout.run(body, specs, (layout.tokens, kernels))(*residuals, gradient)
    return to_hidden, to_heads, None


_cross_entropy.defvjp(_forward, _backward)

_LOWEST = -1e30  # below any score, and finite: a block of padding alone adds exp(-1e30 - top) = 0


def _over_blocks(
    visit: Callable[[Carry, Array | int, int], Carry], carry: Carry, width: int, block: int
) -> Carry:
    """``visit(carry, start, block)`` over whole blocks in a loop, and once over what is left of ``width``."""
    whole = width // block
    if whole:
        carry = jax.lax.fori_loop(0, whole, lambda i, carry: visit(carry, i * block, block), carry)
    return visit(carry, whole * block, width % block) if width % block else carry


def _gather(kernel: Array, start: Array | int, width: int, head: _Head, hidden: Array) -> Array:
    """Columns ``start <= column < start + width`` of this device, with all rows, in the products' dtype."""
    block = jax.lax.dynamic_slice_in_dim(kernel, start, width, axis=1).astype(hidden.dtype)
    return jax.lax.all_gather(block, head.rows_over, axis=0, tiled=True) if head.rows_over else block


def _scatter(part: Array, head: _Head, layout: _Layout) -> Array:
    """Sums a block's gradient over the devices that hold other tokens and keeps this device's rows."""
    for axis in head.rows_over:
        if axis in layout.tokens_over:
            part = jax.lax.psum_scatter(part, axis, scatter_dimension=0, tiled=True)
        else:
            rows = part.shape[0] // jax.lax.axis_size(axis)
            part = jax.lax.dynamic_slice_in_dim(part, jax.lax.axis_index(axis) * rows, rows, axis=0)
    others = tuple(axis for axis in layout.tokens_over if axis not in head.rows_over)
    return jax.lax.psum(part, others) if others else part


def _scores(hidden: Array, block: Array, start: Array | int, head: _Head) -> tuple[Array, Array]:
    """Scores of a block and the joint columns that they belong to; padding scores as low as can be, for column -2."""
    scores = jnp.einsum("nd,dv->nv", hidden, block, preferred_element_type=jnp.float32)
    own = start + jnp.arange(block.shape[1])
    if head.columns_over:
        own = own + jax.lax.axis_index(head.columns_over) * head.local_width
    if head.num_columns == head.width:
        return scores, head.first + own
    real = own < head.num_columns
    return jnp.where(real, scores, _LOWEST), jnp.where(real, head.first + own, -2)
