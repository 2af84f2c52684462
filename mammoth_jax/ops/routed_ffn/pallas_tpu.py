"""Our grouped product for TPU: each run of rows by its own expert's kernel, which is read where it lies.

A custom call gets a slice or a stack of arrays as a copy only.  So the experts are operands of their own, each with a
pipeline of blocks that stands still while other experts' rows are at work, and a kernel may lie in the stack of all
layers: the layer comes by scalar prefetch.

The grid is blocks of columns, then visits, then blocks of the summed dimension.  A visit is a block of rows for one
expert.  A block in which one expert's rows end and another's begin is visited by both, one after the other; the later
one writes from its first row on.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.target import target_platform
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.ops.routed_ffn.experts import ExpertKernels
from mammoth_jax.ops.routed_ffn.grouped import grouped_ffn
from mammoth_jax.ops.routed_ffn.per_device import route_per_device

LANES = 128


@dataclasses.dataclass(frozen=True)
class PallasTPU:
    """``tiling`` is the block of rows, of the summed dimension and of the columns of each product, for two experts in
    bfloat16.

    For passes without gradients: differentiating is refused.  Away from a TPU the kernel is interpreted, for tests.
    """

    tiling: tuple[int, int, int] = (512, 1024, 1024)
    reads_stacks: ClassVar[bool] = True

    def __call__(
        self,
        x: Float[Array, "b s d"],
        experts: Sequence[ExpertKernels],
        expert: Int[Array, "b s k"],
        weights: Float[Array, "b s k"] | None,
    ) -> Float[Array, "b s d"]:
        """See :func:`mammoth_jax.ops.routed_ffn.routed_ffn`.

        Raises:
          InputError: when it is differentiated.
        """
        hard = functools.partial(_hard, self.tiling, target_platform() != "tpu")
        return route_per_device(hard, x, experts, expert, weights)


def _hard(
    tiling: tuple[int, int, int],
    interpret: bool,
    x: Float[Array, "b s d"],
    experts: Sequence[ExpertKernels],
    expert: Int[Array, "b s"],
) -> Float[Array, "b s d"]:
    layer = experts[0].layer
    if layer is None:
        one = [ExpertKernels(e.gate[None], e.up[None], e.down[None]) for e in experts]
        experts, layer = one, jnp.zeros((), jnp.int32)

    def product(rows: Array, kernels: tuple[Array, ...], counts: Array) -> Array:
        return grouped_product(tiling, interpret, rows, kernels, counts, layer)

    return grouped_ffn(product, x, experts, expert)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def grouped_product(
    tiling: tuple[int, int, int],
    interpret: bool,
    rows: Float[Array, "n d"],
    kernels: tuple[Float[Array, "l d f"], ...],
    counts: Int[Array, " E"],
    layer: Int[Array, ""],
) -> Float[Array, "n f"]:
    """Product of each run of ``rows`` with its own expert's kernel of ``layer``, summed in float32.

    Args:
      tiling, interpret: see :class:`PallasTPU`.
      rows: sorted by expert.
      kernels: stacks of all layers' kernels, one an expert; cast to the dtype of ``rows`` block by block.
      counts: rows of each expert, from 0 on; they sum to ``n``.
      layer: which layer of the stacks.
    """
    n, d = rows.shape
    columns = kernels[0].shape[2]
    num_experts = len(kernels)
    # Wider numbers and more experts get smaller blocks, of as many bytes of VMEM.
    width = 2 / max(rows.dtype.itemsize, kernels[0].dtype.itemsize)
    tile = min(tiling[0], -(-n // 16) * 16)
    inner = _block(d, tiling[1] * width)
    wide = _block(columns, tiling[2] * width * 2 / max(num_experts, 2))
    steps = pl.cdiv(d, inner)
    expert_of, tile_of, first_row, visits = _visits(counts, n, tile)

    def rows_at(column, visit, step, layer, expert_of, tile_of, *_):
        return tile_of[visit], step

    def out_at(column, visit, step, layer, expert_of, tile_of, *_):
        return tile_of[visit], column

    def kernel_at(expert, column, visit, step, layer, expert_of, tile_of, first_row, visits):
        # Before its rows an expert holds the block that it needs first, after them the last one: nothing is fetched.
        begin, end = visits[expert], visits[expert + 1]
        at = jnp.where(visit < begin, 0, jnp.where(visit < end, step, steps - 1))
        return layer[0], jnp.where(begin < end, at, 0), jnp.where(begin < end, column, 0)

    return pl.pallas_call(
        functools.partial(_kernel, steps=steps, left=d - (steps - 1) * inner),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(pl.cdiv(columns, wide), visits[-1], steps),
            in_specs=[
                pl.BlockSpec((tile, inner), rows_at),
                *(
                    pl.BlockSpec((None, inner, wide), functools.partial(kernel_at, e))
                    for e in range(num_experts)
                ),
            ],
            out_specs=pl.BlockSpec((tile, wide), out_at),
            scratch_shapes=[pltpu.VMEM((tile, wide), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((n, columns), rows.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        interpret=interpret,
        name="grouped_product",
    )(layer.reshape(1).astype(jnp.int32), expert_of, tile_of, first_row, visits, rows, *kernels)


def _refuse_gradients(*_) -> tuple[Array, None]:
    raise InputError(
        "routed FFN 'pallas_tpu' has no gradients: train with 'megablox', 'ragged' or 'both', and leave kernels in "
        "stacks of layers only in passes that are not differentiated"
    )


grouped_product.defvjp(_refuse_gradients, lambda *_: ())


def _block(size: int, largest: float) -> int:
    """The whole, or a multiple of 128 that covers it evenly."""
    if size <= max(largest, LANES):
        return size
    lanes = pl.cdiv(size, LANES)
    return LANES * pl.cdiv(lanes, pl.cdiv(lanes, max(int(largest) // LANES, 1)))


def _visits(
    counts: Int[Array, " E"], n: int, tile: int
) -> tuple[Int[Array, " v"], Int[Array, " v"], Int[Array, " E"], Int[Array, " E1"]]:
    """Each visit's expert and block of rows, where each expert's rows begin, and where its visits do (and all end).

    There is a visit a block, and one more for each further expert that begins inside one: room is for all of them.
    """
    counts = counts.astype(jnp.int32)
    ends = jnp.cumsum(counts)
    first = (ends - counts) // tile
    visits = jnp.cumsum(jnp.where(counts > 0, (ends - 1) // tile - first + 1, 0))
    begin = jnp.concatenate([jnp.zeros(1, jnp.int32), visits])
    visit = jnp.arange(pl.cdiv(n, tile) + counts.shape[0] - 1)
    expert = jnp.minimum(jnp.sum(visit[:, None] >= visits, axis=1, dtype=jnp.int32), counts.shape[0] - 1)
    block = jnp.minimum(first[expert] + visit - begin[expert], pl.cdiv(n, tile) - 1)
    return expert, block, ends - counts, begin


def _kernel(
    layer_ref, expert_ref, tile_ref, first_row_ref, visits_ref, rows_ref, *refs, steps: int, left: int
) -> None:
    *kernel_refs, out_ref, sum_ref = refs
    visit, step = pl.program_id(1), pl.program_id(2)
    expert = expert_ref[visit]

    @pl.when(step == 0)
    def _():
        sum_ref[...] = jnp.zeros_like(sum_ref)

    def add(kernel_ref, size: int) -> None:
        sum_ref[...] += jax.lax.dot_general(
            rows_ref[:, :size],
            kernel_ref[:size].astype(rows_ref.dtype),
            (((1,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )

    inner = rows_ref.shape[1]
    for number, kernel_ref in enumerate(kernel_refs):
        if left == inner:
            pl.when(expert == number)(functools.partial(add, kernel_ref, inner))
        else:  # what the last block holds beyond the end may be anything
            own, is_last = expert == number, step == steps - 1
            pl.when(own & ~is_last)(functools.partial(add, kernel_ref, inner))
            pl.when(own & is_last)(functools.partial(add, kernel_ref, left))

    @pl.when(step == steps - 1)
    def _():
        tile = out_ref.shape[0]
        row = tile_ref[visit] * tile + jax.lax.broadcasted_iota(jnp.int32, out_ref.shape, 0)
        kept = jnp.where(row >= first_row_ref[expert], sum_ref[...], out_ref[...].astype(jnp.float32))
        out_ref[...] = kept.astype(out_ref.dtype)
