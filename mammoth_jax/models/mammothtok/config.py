"""Sizes of the visual tokenizer; the defaults are the released ones."""

import dataclasses

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.mammothtok.estimators import RotationTrick, StraightThrough

PARTS = frozenset({"mammothtok_encoder", "mammothtok_codebook", "mammothtok_decoder"})
"""Names of the separately storable parts."""


def _check_heads(name: str, width: int, num_heads: int) -> None:
    if width % num_heads:
        raise InputError(f"{name}.num_heads {num_heads} does not divide the width {width}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The AIMv2 encoder at native resolution (Fini et al. 2024)."""

    patch_size: int = 14
    width: int = 1024
    mlp_width: int = 2816
    num_layers: int = 24
    num_heads: int = 8

    def __post_init__(self) -> None:
        _check_heads("encoder", self.width, self.num_heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTDecoderConfig:
    """The transformer between codes and pixels; its semantic head reads the output of ``distill_depth`` blocks."""

    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_ratio: int = 4
    distill_depth: int = 3
    semantic_width: int = 1536

    def __post_init__(self) -> None:
        _check_heads("vit", self.width, self.num_heads)
        if self.width // self.num_heads % 4:
            raise InputError(
                f"vit: head width {self.width // self.num_heads} must be a multiple of 4 for 2-d rope"
            )
        if not 1 <= self.distill_depth <= self.num_layers:
            raise InputError(
                f"vit.distill_depth {self.distill_depth}: expected 1..{self.num_layers} (num_layers)"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNNDecoderConfig:
    """The convolutional decoder.

    Level ``i`` has ``channels * multipliers[i]`` channels, from the full picture (0) down to the token grid (last);
    each level but the finest ends with a doubling of the sides.  ``upsampling`` pixels a token side may be less than
    ``2 ** (levels - 1)``: a bilinear resize before the last doubling then makes up the difference (7/8 in the
    release: 14 of 16).
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    norm_groups: int = 32
    upsampling: int = 14

    def __post_init__(self) -> None:
        full = 2 ** (len(self.multipliers) - 1)
        fractional = self.upsampling % 2 == 0 and full // 2 < self.upsampling < full
        if self.upsampling != full and not fractional:
            raise InputError(
                f"cnn.upsampling {self.upsampling}: expected {full} for {len(self.multipliers)} multipliers, "
                f"or an even number between {full // 2} and {full}"
            )
        for multiplier in self.multipliers:
            if self.channels * multiplier % self.norm_groups:
                raise InputError(
                    f"cnn.norm_groups {self.norm_groups} does not divide {self.channels} * {multiplier} channels"
                )

    @property
    def fractional(self) -> bool:
        """Whether the bilinear resize is there."""
        return self.upsampling != 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MammothTokConfig:
    """Encoder, codebook and decoder; ``z_channels`` is the decoder's width at the token grid.

    ``commitment`` and ``entropy_ratio`` weigh the quantiser's losses, ``estimator`` is the gradient through it.
    """

    encoder: EncoderConfig = EncoderConfig()
    codebook_size: int = 16384
    code_dim: int = 8
    l2_norm: bool = True
    commitment: float = 0.25
    entropy_ratio: float = 0.0
    estimator: RotationTrick | StraightThrough = RotationTrick()
    z_channels: int = 1024
    vit: ViTDecoderConfig = ViTDecoderConfig()
    cnn: CNNDecoderConfig = CNNDecoderConfig()
