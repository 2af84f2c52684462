"""Codes and latents of the pictures of a step, by the frozen MammothTok and VAE, where they were not precomputed."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mammoth_jax.core.mesh import AXES, make_mesh
from mammoth_jax.core.types import Array, Float, Int, UInt8
from mammoth_jax.data.packing.pictures import ToEncode
from mammoth_jax.data.record import Encoded
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.objectives.tokenizer import as_float

_ROWS = 8


class FrozenEncoder:
    """Encodes on one device of this host, in batches of pictures of one size.

    A program is compiled for each size: data sets of many sizes are better encoded beforehand (``precompute``).

    Args:
      mammothtok, vae: on :func:`local_mesh`.
    """

    def __init__(self, mammothtok: MammothTok, vae: VAE | None):
        self._mammothtok, self._vae, self._mesh = mammothtok, vae, local_mesh()

    def encode(self, pictures: Sequence[ToEncode]) -> list[Encoded]:
        """Codes of ``tokens`` and the posterior (not scaled) of ``latents``, of each picture."""
        with jax.set_mesh(self._mesh):
            codes = self._by_size([p.tokens for p in pictures], _codes, self._mammothtok)
            latents = self._by_size([p.latents for p in pictures], _posterior, self._vae)
        return [
            Encoded(None if c is None else c[0], *((None, None) if x is None else x))
            for c, x in zip(codes, latents, strict=True)
        ]

    def _by_size(
        self, pictures: Sequence[np.ndarray | None], program: jax.stages.Wrapped, model: object
    ) -> list[tuple[np.ndarray, ...] | None]:
        """What ``program`` gives for every picture that is there."""
        out: list[tuple[np.ndarray, ...] | None] = [None] * len(pictures)
        for size in sorted({p.shape for p in pictures if p is not None}):
            of = [i for i, p in enumerate(pictures) if p is not None and p.shape == size]
            for first in range(0, len(of), _ROWS):
                taken = of[first : first + _ROWS]
                batch = np.zeros((_ROWS, *size), np.uint8)
                batch[: len(taken)] = np.stack([np.asarray(pictures[i]) for i in taken])
                made = jax.device_get(program(model, batch))
                for row, i in enumerate(taken):
                    out[i] = tuple(x[row] for x in made)
        return out


def local_mesh() -> Mesh:
    """One device of this host."""
    return make_mesh(dict.fromkeys(AXES, 1), jax.local_devices()[:1])


@jax.jit
def _codes(model: MammothTok, picture: UInt8[Array, "b h w 3"]) -> tuple[Int[Array, "b rows cols"]]:
    return (model.encode(as_float(picture)),)


@jax.jit
def _posterior(model: VAE, picture: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b h w c"], ...]:
    made = model.encode(as_float(picture))
    return jnp.asarray(made.mean), jnp.asarray(made.logvar)
