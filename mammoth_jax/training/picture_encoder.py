"""Codes and latents of the pictures of a step, by the frozen MammothTok and VAE, where they were not precomputed."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.mesh import AXES, make_mesh
from mammoth_jax.core.parameters import abstract, num_parameters
from mammoth_jax.core.types import Array, Float, Int, UInt8
from mammoth_jax.data.example import DRAWING
from mammoth_jax.data.packing.pictures import ToEncode
from mammoth_jax.data.record import Encoded
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammothtok.encoder import TokenEncoder
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.mammothtok.quantizer import Quantizer
from mammoth_jax.models.vae.model import VAE, Encoder
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.joint_config import JointTraining

_ROWS = 8
_PIXELS = 2**20
"""Of a batch, if one picture is not larger: what its encoding needs is taken from the training step's chip."""


class FrozenEncoder:
    """Encodes on one device of this host, in batches of pictures of one size.

    A program is compiled for each size: data sets of many sizes are better encoded beforehand (``precompute``).
    Of the models only what encodes is kept.

    Args:
      mammothtok, vae: on :func:`local_mesh`.
    """

    def __init__(self, mammothtok: MammothTok, vae: VAE | None):
        self._tokens, self._latents = mammothtok.encoding(), None if vae is None else vae.encoder
        self._mesh = local_mesh()

    def encode(self, pictures: Sequence[ToEncode]) -> list[Encoded]:
        """Codes of ``tokens`` and the posterior (not scaled) of ``latents``, of each picture."""
        with jax.set_mesh(self._mesh):
            codes = self._by_size([p.tokens for p in pictures], _codes, self._tokens)
            latents = self._by_size([p.latents for p in pictures], _posterior, self._latents)
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
            rows = rows_at_once(*size[:2])
            for first in range(0, len(of), rows):
                taken = of[first : first + rows]
                batch = np.zeros((rows, *size), np.uint8)
                batch[: len(taken)] = np.stack([np.asarray(pictures[i]) for i in taken])
                made = jax.device_get(program(model, batch))
                for row, i in enumerate(taken):
                    out[i] = tuple(x[row] for x in made)
        return out


def rows_at_once(height: int, width: int) -> int:
    """Pictures of a batch."""
    return min(_ROWS, max(1, _PIXELS // (height * width)))


def encoding_bytes(config: JointTraining) -> int:
    """Bytes on the chip of each host that encodes, at the most: weights, and work where not all is precomputed.

    The work is that of the VAE's first block and of the attention over all of its latents, the largest of both models.
    For the released VAE a v5p's compiler reports 1.00 of it for eight pictures of 512 pixels, 1.03 for two of 1024.
    """
    if not config.draws:
        return 0
    weights = abstract(lambda: _encoding(config.model, "dit" in config.parts(config.data)))
    side = config.max_side or config.model.picture_size
    rows, vae = rows_at_once(side, side), config.model.vae
    work = rows * (3 * vae.block_out_channels[0] * side**2 + vae.mid_attention * (side // vae.factor) ** 4)
    drawn = [source for source in config.sources if source.task in DRAWING]
    return 4 * (num_parameters(weights) + work * any(source.encoded is None for source in drawn))


def local_mesh() -> Mesh:
    """One device of this host."""
    return make_mesh(dict.fromkeys(AXES, 1), jax.local_devices()[:1])


@jax.jit
def _codes(
    model: tuple[TokenEncoder, Quantizer], picture: UInt8[Array, "b h w 3"]
) -> tuple[Int[Array, "b rows cols"]]:
    encoder, quantizer = model
    return (quantizer.encode(encoder(as_float(picture))),)


@jax.jit
def _posterior(encoder: Encoder, picture: UInt8[Array, "b h w 3"]) -> tuple[Float[Array, "b h w c"], ...]:
    return tuple(encoder(as_float(picture)))


def _encoding(config: MammothConfig, diffusion: bool) -> nnx.Module:
    """What a :class:`FrozenEncoder` keeps."""
    tokens = MammothTok(config.mammothtok, parts=frozenset(("mammothtok_encoder", "mammothtok_codebook")))
    return nnx.List([*tokens.encoding(), *([Encoder(config.vae)] if diffusion else [])])
