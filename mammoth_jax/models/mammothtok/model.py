"""MammothTok: pictures to visual tokens and back."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float, Int, UInt8
from mammoth_jax.layers.linear import Linear
from mammoth_jax.models.mammothtok.cnn_decoder import CNNDecoder
from mammoth_jax.models.mammothtok.config import PARTS, MammothTokConfig
from mammoth_jax.models.mammothtok.encoder import PatchSequence, TokenEncoder
from mammoth_jax.models.mammothtok.quantizer import Quantizer
from mammoth_jax.models.mammothtok.vit_decoder import ViTDecoder


class PictureDecoder(nnx.Module):
    """Code vectors to a picture."""

    def __init__(self, config: MammothTokConfig):
        self.from_code = Linear(config.code_dim, config.z_channels, axes=(None, "embed"), bias=True)
        self.vit = ViTDecoder(config.vit, config.z_channels)
        self.cnn = CNNDecoder(config.cnn, config.z_channels)

    def __call__(self, codes: Float[Array, "b gr gc c"]) -> Float[Array, "b rows cols 3"]:
        """The picture, about [-1, 1] and not clamped."""
        return self.cnn(self.vit(self.from_code(codes)))


class MammothTok(nnx.Module):
    """The parts that a checkpoint holds; an absent part is ``None``, and using it is an :class:`InputError`."""

    def __init__(self, config: MammothTokConfig, *, parts: frozenset[str] = PARTS):
        if parts - PARTS:
            raise ValueError(f"unknown parts {sorted(parts - PARTS)}; known: {sorted(PARTS)}")
        self.encoder = (
            TokenEncoder(config.encoder, config.code_dim) if "mammothtok_encoder" in parts else None
        )
        self.quantizer = Quantizer(config) if "mammothtok_codebook" in parts else None
        self.decoder = PictureDecoder(config) if "mammothtok_decoder" in parts else None

    def encode(self, picture: Float[Array, "b rows cols 3"]) -> Int[Array, "b gr gc"]:
        """Code ids of a picture in [-1, 1] whose sides are multiples of the patch size.

        Raises:
          InputError: the encoder or the codebook is absent, or a side is not a multiple.
        """
        encoder, quantizer = self.encoding()
        return quantizer.encode(encoder(picture))

    def encode_patches(self, sequence: PatchSequence) -> Int[Array, "b n"]:
        """Code ids of pictures of any grid as padded sequences of patches; those of the padding mean nothing.

        Raises:
          InputError: the encoder or the codebook is absent.
        """
        encoder, quantizer = self.encoding()
        return quantizer.encode(encoder.read(sequence))

    def encoding(self) -> tuple[TokenEncoder, Quantizer]:
        """The parts that turn pictures into tokens.

        Raises:
          InputError: one of them is absent.
        """
        if self.encoder is None or self.quantizer is None:
            raise InputError(_absent("encoder and codebook", "turn pictures into tokens"))
        return self.encoder, self.quantizer

    def decoding(self) -> tuple[PictureDecoder, Quantizer]:
        """The parts that turn tokens into pictures.

        Raises:
          InputError: one of them is absent.
        """
        if self.decoder is None or self.quantizer is None:
            raise InputError(_absent("decoder and codebook", "turn tokens into pictures"))
        return self.decoder, self.quantizer

    def decode(
        self, ids: Int[Array, "b gr gc"], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "b rows cols 3"]:
        """The picture of code ids, about [-1, 1] and not clamped, float32; computed in ``dtype``.

        Raises:
          InputError: the decoder or the codebook is absent.
        """
        decoder, quantizer = self.decoding()
        return decoder(quantizer.lookup(ids).astype(dtype)).astype(jnp.float32)


def to_uint8(picture: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Pixels of a decoded picture as the release rounds them: ``127.5 x + 128`` clamped and truncated."""
    return jnp.clip(127.5 * picture.astype(jnp.float32) + 128.0, 0.0, 255.0).astype(jnp.uint8)


def _absent(parts: str, task: str) -> str:
    return f"this checkpoint does not hold the MammothTok {parts} needed to {task}; use one that does"
