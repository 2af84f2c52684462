"""Three-dimensional positions of the joint sequence and their rotary factors.

Condition token ``i`` sits at ``(i, i, i)``.  Each picture has one first coordinate for all its tokens and (row, column)
after it.  In the release the first picture's is the condition's length, and each reference moves the next one by its
longer side; in the paper it is the time.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.types import Array, Bool, Float, Int, Shaped

THETA = 10000.0
Rope = tuple[Float[Array, "b s half"], Float[Array, "b s half"]]


@dataclasses.dataclass(frozen=True)
class SequenceAxis:
    """The first rope axis holds a picture's offset in the sequence, as released."""

    def place(self, positions: Int[Array, "b n 3"], time: Float[Array, "b #n"]) -> Shaped[Array, "b n 3"]:
        """The positions as they are."""
        return positions


@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """The first rope axis of pictures holds ``scale`` times the time of denoising, from noise (0) to data (1).

    The paper's variant (section 2.4): the two spatial dimensions encode where a latent patch is, the temporal one the
    denoising timestep.  It does not say where other tokens are: here condition tokens stay at ``(i, i, i)``, and
    references, being data, are at time 1; their index embeddings tell them apart.
    """

    scale: float = 1000.0

    def place(self, positions: Int[Array, "b n 3"], time: Float[Array, "b #n"]) -> Shaped[Array, "b n 3"]:
        """The positions with the time in the first place."""
        first = jnp.broadcast_to(self.scale * time, positions.shape[:2])
        return jnp.concatenate([first[..., None], positions[..., 1:].astype(first.dtype)], axis=-1)


def rope_factors(positions: Shaped[Array, "b s axes"], axes_dims: tuple[int, ...]) -> Rope:
    """Cosine and sine for each rotated pair, the axes' pairs side by side.

    The frequencies are ``theta ** (-2 j / dim)`` in double precision.  A float32 product of position and frequency
    would lose 1e-4 at position 1000, so the angle is kept in turns and reduced exactly: the frequency is split into
    multiples of 2^-11, of 2^-22 and a rest, and whole turns are dropped from each product before they are added.
    Positions are whole numbers, or times (:class:`TimeAxis`), for which the last bits of the product are rounded.
    """
    turns = []
    for axis, dim in enumerate(axes_dims):
        frequency = THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim) / (2 * np.pi)
        coarse = np.round(frequency * 2.0**11) / 2.0**11
        middle = np.round((frequency - coarse) * 2.0**22) / 2.0**22
        rest = frequency - coarse - middle
        position = positions[..., axis, None].astype(jnp.float32)
        parts = [position * jnp.asarray(part, jnp.float32) for part in (coarse, middle, rest)]
        turns.append(sum(part - jnp.round(part) for part in parts))
    turn = jnp.concatenate(turns, axis=-1)
    angle = (turn - jnp.round(turn)) * (2 * np.pi)
    return jnp.cos(angle), jnp.sin(angle)


def grid_positions(
    sizes: Int[Array, "*b 2"], num_tokens: int
) -> tuple[Int[Array, "*b n"], Int[Array, "*b n"], Bool[Array, "*b n"]]:
    """Row, column and validity of each token of pictures with ``sizes`` = (rows, columns); padding is at (0, 0)."""
    index = jnp.arange(num_tokens)
    rows, cols = sizes[..., :1], sizes[..., 1:]
    valid = index < rows * cols
    width = jnp.maximum(cols, 1)
    return jnp.where(valid, index // width, 0), jnp.where(valid, index % width, 0), valid


def condition_positions(index: Int[Array, "b c"]) -> Int[Array, "b c 3"]:
    """Condition token ``i`` at ``(i, i, i)``."""
    return jnp.broadcast_to(index[..., None], (*index.shape, 3))


def picture_positions(
    offset: Int[Array, "*b"], sizes: Int[Array, "*b 2"], num_tokens: int
) -> tuple[Int[Array, "*b n 3"], Bool[Array, "*b n"]]:
    """Positions of pictures whose first coordinate is ``offset``, and which tokens are valid; padding is at 0."""
    rows, cols, valid = grid_positions(sizes, num_tokens)
    first = jnp.where(valid, offset[..., None], 0)
    return jnp.stack([first, rows, cols], axis=-1), valid


def reference_offsets(
    start: Int[Array, " b"], sizes: Int[Array, "b r 2"]
) -> tuple[Int[Array, "b r"], Int[Array, " b"]]:
    """First coordinates of the references, and of the target that follows them; absent references have size 0."""
    side = jnp.max(sizes, axis=-1)
    end = start[:, None] + jnp.cumsum(side, axis=1)
    return end - side, end[:, -1]


def select_rope(rope: Rope, valid: Bool[Array, "b s"]) -> Rope:
    """Zero factors, which erase queries and keys, where ``valid`` is false."""
    cos, sin = rope
    zero = jax.tree.map(jnp.zeros_like, rope)
    return jnp.where(valid[..., None], cos, zero[0]), jnp.where(valid[..., None], sin, zero[1])
