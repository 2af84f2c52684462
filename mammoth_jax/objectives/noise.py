"""Noise on the visual tokens that the decoder reads in training (paper section 3.1.4).

While sampling, the decoder goes on from its own imperfect tokens; in training it reads the true ones.  So some of those
that it reads are replaced, while the targets stay clean: rectangles of the grid by random codes (:class:`RegionNoise`),
or single codes by similar ones (:class:`SimilarityNoise`, the paper's choice).  Structure tokens are never touched.  A
sample's noise depends on its key alone: two sequences of one sample, and any packing, get the same.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Key

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Bool, Float, Int

_CELL_STRIDE = 1 << 12  # columns of a grid at most: makes one number of a cell


@dataclasses.dataclass(frozen=True)
class VisualCodes:
    """Ids of the visual tokens: code ``i`` of ``count`` is id ``start + i``."""

    start: int
    count: int


class Neighbours(nnx.Module):
    """The ``k`` nearest codes of every code, nearest first; made once from the tokenizer's codebook."""

    def __init__(self, table: Int[Array, "v k"]):
        self.table = nnx.Variable(table)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoisePlaces:
    """Where noise may go in packed rows.

    Attributes:
      cells: row and column of each visual token of a drawn picture in its token grid; negative elsewhere.
      sample: the sample that each of them belongs to, from 1 on; 0 elsewhere.
    """

    cells: Int[Array, "b s 2"]
    sample: Int[Array, "b s"]

    def sizes(self, num_samples: int) -> Int[Array, "b samples 2"]:
        """Rows and columns of the samples' grids; 0 where a sample has no visual tokens."""
        own = self.sample[..., None] == jnp.arange(1, num_samples + 1)
        ends = self.cells.astype(jnp.int32) + 1
        return jnp.max(jnp.where(own[..., None], ends[:, :, None], 0), axis=1, initial=0)

    def of_tokens(self, values: Array) -> Array:
        """Each token's value of its sample's ``[b, samples, ...]``; meaningless where there is none."""
        index = jnp.maximum(self.sample - 1, 0).reshape(*self.sample.shape, *(1,) * (values.ndim - 2))
        return jnp.take_along_axis(values, index, axis=1)

    def token_keys(self, keys: Key[Array, "b samples"]) -> Key[Array, "b s"]:
        """A key a token, of its sample and cell."""
        own = jax.random.wrap_key_data(self.of_tokens(jax.random.key_data(keys)))
        cells = self.cells.astype(jnp.int32)
        return jax.vmap(jax.vmap(jax.random.fold_in))(own, cells[..., 0] * _CELL_STRIDE + cells[..., 1])


class VisualNoise(Protocol):
    """A kind of noise."""

    def __call__(
        self,
        code: Int[Array, "b s"],
        places: NoisePlaces,
        keys: Key[Array, "b samples"],
        codes: VisualCodes,
        neighbours: Neighbours | None,
    ) -> tuple[Int[Array, "b s"], Bool[Array, "b s"]]:
        """Codes to read instead, and where to read them (only where ``places.sample`` is not 0)."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionNoise:
    """In some pictures one rectangle of the token grid reads random codes.

    A rectangle covers between ``smallest`` and ``largest`` of the picture (rounded up to whole cells), its sides' ratio
    lies within 2 of the grid's, and so many pictures have one that on average the share ``rate`` of their visual tokens
    is replaced.
    """

    rate: float = 0.1
    smallest: float = 0.1
    largest: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= self.smallest <= self.largest <= 1:
            raise InputError(
                f"noise: rate {self.rate}, smallest {self.smallest}, largest {self.largest}: expected "
                "0 <= rate <= smallest <= largest <= 1, since a picture has one rectangle at most"
            )

    def regions(
        self, keys: Key[Array, "b samples"], sizes: Int[Array, "b samples 2"]
    ) -> Int[Array, "b samples 4"]:
        """Top, left, bottom and right of each picture's rectangle; all 0 where it has none."""

        def one(key: Array, size: Array) -> Array:
            share, shape, place, kept = (jax.random.fold_in(key, i) for i in range(4))
            rows, cols = size.astype(jnp.float32)
            area = jax.random.uniform(share, minval=self.smallest, maxval=self.largest)
            ratio = 2.0 ** jax.random.uniform(shape, minval=-1.0, maxval=1.0)
            height = jnp.clip(jnp.ceil(rows * jnp.sqrt(area * ratio)), jnp.ceil(area * rows), rows)
            width = jnp.clip(jnp.ceil(area * rows * cols / jnp.maximum(height, 1)), 1, cols)
            # larger rectangles are kept less often, so that the rate holds whatever the rounding
            odds = self.rate * rows * cols / jnp.maximum(height * width, 1)
            keep = jax.random.uniform(kept) < odds
            at = jnp.floor(jax.random.uniform(place, (2,)) * (size - jnp.stack([height, width]) + 1))
            box = jnp.stack([at[0], at[1], at[0] + height, at[1] + width]).astype(jnp.int32)
            return jnp.where(keep, box, 0)

        return jax.vmap(jax.vmap(one))(keys, sizes)

    def __call__(
        self,
        code: Int[Array, "b s"],
        places: NoisePlaces,
        keys: Key[Array, "b samples"],
        codes: VisualCodes,
        neighbours: Neighbours | None,
    ) -> tuple[Int[Array, "b s"], Bool[Array, "b s"]]:
        box = places.of_tokens(self.regions(keys, places.sizes(keys.shape[1])))
        row, col = places.cells[..., 0], places.cells[..., 1]
        inside = (row >= box[..., 0]) & (row < box[..., 2]) & (col >= box[..., 1]) & (col < box[..., 3])
        draw = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, codes.count)))
        return draw(places.token_keys(keys)), inside & (places.sample > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimilarityNoise:
    """Each visual token reads, with probability ``rate``, one of the ``neighbours`` nearest codes in its place."""

    rate: float = 0.1
    neighbours: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1 or self.neighbours < 1:
            raise InputError(
                f"noise: rate {self.rate}, neighbours {self.neighbours}: expected a rate between 0 and 1 and one "
                "neighbour or more"
            )

    def __call__(
        self,
        code: Int[Array, "b s"],
        places: NoisePlaces,
        keys: Key[Array, "b samples"],
        codes: VisualCodes,
        neighbours: Neighbours | None,
    ) -> tuple[Int[Array, "b s"], Bool[Array, "b s"]]:
        if neighbours is None:
            raise InputError("similarity noise needs the table of neighbours of MammothTok's codebook")
        table = neighbours.table[...]
        if table.shape != (codes.count, self.neighbours):
            raise InputError(
                f"the table of neighbours is {table.shape[0]}x{table.shape[1]}: expected "
                f"{codes.count}x{self.neighbours}"
            )

        def one(key: Array) -> tuple[Array, Array]:
            return (
                jax.random.uniform(jax.random.fold_in(key, 0)),
                jax.random.randint(jax.random.fold_in(key, 1), (), 0, self.neighbours),
            )

        u, pick = jax.vmap(jax.vmap(one))(places.token_keys(keys))
        return table[jnp.clip(code, 0, codes.count - 1), pick], (u < self.rate) & (places.sample > 0)


def add_noise(
    noise: VisualNoise,
    ids: Int[Array, "b s"],
    places: NoisePlaces,
    keys: Key[Array, "b samples"],
    codes: VisualCodes,
    neighbours: Neighbours | None,
) -> Int[Array, "b s"]:
    """The ids that the decoder reads.

    Raises:
      InputError: similarity noise without its table, or with one of another size.
    """
    read, where = noise(ids - codes.start, places, keys, codes, neighbours)
    return jnp.where(where, codes.start + read, ids).astype(ids.dtype)


def nearest_codes(codebook: Float[Array, "v c"], k: int, *, block: int = 256) -> Int[Array, "v k"]:
    """The ``k`` codes nearest to each code, itself left out; equal distances go to the lower code.

    Distances are held for ``block`` codes at a time.

    Raises:
      InputError: there are not so many other codes.
    """
    count = codebook.shape[0]
    if not 0 < k < count:
        raise InputError(f"neighbours {k}: a codebook of {count} codes has between 1 and {count - 1}")
    codes = codebook.astype(jnp.float32)

    def rows(first: Array) -> Array:
        own = first + jnp.arange(block)
        picked = codes[jnp.minimum(own, count - 1)]
        product = jnp.einsum("ic,vc->iv", picked, codes, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.sum(jnp.square(codes), axis=-1) - 2 * product  # without the row's own constant
        distance = jnp.where(own[:, None] == jnp.arange(count), jnp.inf, distance)
        return jax.lax.top_k(-distance, k)[1]

    table = jax.jit(lambda: jax.lax.map(rows, jnp.arange(0, count, block)))()
    return table.reshape(-1, k)[:count].astype(jnp.int32)
