"""Configurations of the two vision towers."""

import dataclasses
import math

from mammoth_jax.core.errors import InputError


def _require_heads(hidden_size: int, num_heads: int) -> None:
    if hidden_size % num_heads:
        raise InputError(f"vision hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
    if hidden_size // num_heads % 4:
        raise InputError(
            f"vision head width {hidden_size // num_heads} is not a multiple of 4: rows and columns each turn "
            "a quarter of it in pairs"
        )


@dataclasses.dataclass(frozen=True)
class Qwen3VLVisionConfig:
    """The tower of Qwen3-VL: learned position grid, plain MLPs, DeepStack taps.

    ``num_position_embeddings`` is the number of cells of the square position grid;
    ``deepstack_visual_indexes`` are the layers whose outputs are merged and added to the first layers of the
    decoder.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3

    def __post_init__(self) -> None:
        _require_heads(self.hidden_size, self.num_heads)
        if not all(0 <= layer < self.num_layers for layer in self.deepstack_visual_indexes):
            raise InputError(
                f"deepstack_visual_indexes {self.deepstack_visual_indexes} are not below num_layers {self.num_layers}"
            )
        if sorted(set(self.deepstack_visual_indexes)) != list(self.deepstack_visual_indexes):
            raise InputError(
                f"deepstack_visual_indexes {self.deepstack_visual_indexes} must rise: they name layers in order"
            )

    @property
    def position_side(self) -> int:
        """Cells along a side of the position grid."""
        return math.isqrt(self.num_position_embeddings)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def merged_size(self) -> int:
        """Width of the patches that are merged into one token of the decoder."""
        return self.hidden_size * self.spatial_merge_size**2

    @property
    def patch_values(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class Qwen25VLVisionConfig:
    """The tower of Qwen2.5-VL: gated MLPs, windowed attention except in ``fullatt_block_indexes``.

    ``window_size`` is in pixels; ``tokens_per_second`` is the rate of temporal positions of a video.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    fullatt_block_indexes: tuple[int, ...]
    window_size: int = 112
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    tokens_per_second: int = 2

    def __post_init__(self) -> None:
        _require_heads(self.hidden_size, self.num_heads)
        if not all(0 <= layer < self.num_layers for layer in self.fullatt_block_indexes):
            raise InputError(
                f"fullatt_block_indexes {self.fullatt_block_indexes} are not below num_layers {self.num_layers}"
            )
        if self.window_tokens < 1:
            raise InputError(
                f"window_size {self.window_size} is less than one token of "
                f"{self.spatial_merge_size * self.patch_size} pixels"
            )

    @property
    def window_tokens(self) -> int:
        """Tokens (merged patches) along a side of an attention window."""
        return self.window_size // self.spatial_merge_size // self.patch_size

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def merged_size(self) -> int:
        """Width of the patches that are merged into one token of the decoder."""
        return self.hidden_size * self.spatial_merge_size**2

    @property
    def patch_values(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2
