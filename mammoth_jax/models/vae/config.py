"""Sizes of the image autoencoder; the defaults are those of FLUX (Black Forest Labs 2024)."""

import dataclasses

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """``block_out_channels`` run from full resolution to the latent grid; each but the last halves the sides.

    Latents are handed out as ``(z - shift_factor) * scaling_factor``.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    mid_attention: bool = True
    scaling_factor: float = 0.3611
    shift_factor: float = 0.1159

    def __post_init__(self) -> None:
        for channels in self.block_out_channels:
            if channels % self.norm_groups:
                raise InputError(f"vae.norm_groups {self.norm_groups} does not divide {channels} channels")
        if not self.block_out_channels or self.scaling_factor == 0:
            raise InputError("vae: at least one block and a scaling factor other than 0 are needed")

    @property
    def factor(self) -> int:
        """Pixels a side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """When and how decoding is cut into tiles; all numbers are in latent cells.

    Grids of more than ``max_cells`` are decoded in square tiles of side ``tile`` that overlap by ``overlap``, in which
    they are blended linearly.
    """

    max_cells: int = 128 * 128
    tile: int = 96
    overlap: int = 24

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= self.tile // 2:
            raise InputError(f"tiling.overlap {self.overlap}: expected 1..{self.tile // 2} (half of tile)")
