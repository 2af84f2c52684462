"""The discrete visual tokenizer."""

from mammoth_jax.models.mammothtok.config import (
    PARTS,
    CNNDecoderConfig,
    EncoderConfig,
    MammothTokConfig,
    ViTDecoderConfig,
)
from mammoth_jax.models.mammothtok.estimators import RotationTrick, StraightThrough
from mammoth_jax.models.mammothtok.model import MammothTok, PictureDecoder, to_uint8
from mammoth_jax.models.mammothtok.quantizer import Quantized, Quantizer

__all__ = [
    "PARTS",
    "CNNDecoderConfig",
    "EncoderConfig",
    "MammothTok",
    "MammothTokConfig",
    "PictureDecoder",
    "Quantized",
    "Quantizer",
    "RotationTrick",
    "StraightThrough",
    "ViTDecoderConfig",
    "to_uint8",
]
