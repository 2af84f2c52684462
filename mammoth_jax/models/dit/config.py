"""Configuration of the diffusion transformer."""

import dataclasses

from mammoth_jax.models.dit.positions import SequenceAxis, TimeAxis


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """A single-stream diffusion transformer (Lumina-2 family) over patches of VAE latents.

    Attributes:
      condition_width: width of the backbone features that condition it.
      ffn_dim_multiplier: factor on four times ``hidden_size``; the product is rounded up to ``multiple_of``.
      axes_dim_rope: parts of the head width that rotate with (sequence offset, row, column).
      axes_lens: number of positions of each rope axis that the released loader prepares; this model has no limit.
      timestep_scale: factor on time before its sinusoid.
      max_references: number of learned index embeddings of reference pictures.
      first_axis: what the first rope axis holds for pictures; see ``positions.py``.
    """

    condition_width: int
    patch_size: int = 2
    in_channels: int = 16
    out_channels: int = 16
    hidden_size: int = 2304
    num_layers: int = 26
    num_refiner_layers: int = 2
    num_heads: int = 24
    num_kv_heads: int = 8
    multiple_of: int = 256
    ffn_dim_multiplier: float | None = None
    norm_eps: float = 1e-5
    axes_dim_rope: tuple[int, int, int] = (32, 32, 32)
    axes_lens: tuple[int, int, int] = (300, 512, 512)
    timestep_scale: float = 1.0
    max_references: int = 5
    first_axis: SequenceAxis | TimeAxis = SequenceAxis()

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads != sum(self.axes_dim_rope):
            raise ValueError(
                f"{self.axes_dim_rope=} must add up to hidden_size / num_heads = {self.hidden_size}/{self.num_heads}"
            )
        if any(dim % 2 for dim in self.axes_dim_rope):
            raise ValueError(f"{self.axes_dim_rope=} must be even: rope rotates pairs")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads=} must be a multiple of {self.num_kv_heads=}")
        if min(self.num_layers, self.num_refiner_layers, self.patch_size, self.max_references) < 1:
            raise ValueError("num_layers, num_refiner_layers, patch_size and max_references must be positive")

    @property
    def ffn_width(self) -> int:
        """Width of the feed-forward layers."""
        inner = 4 * self.hidden_size
        inner = inner if self.ffn_dim_multiplier is None else int(self.ffn_dim_multiplier * inner)
        return self.multiple_of * -(-inner // self.multiple_of)

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return min(self.hidden_size, 1024)

    @property
    def patch_values(self) -> int:
        """Values of one input patch."""
        return self.patch_size**2 * self.in_channels

    @property
    def out_patch_values(self) -> int:
        """Values of one output patch."""
        return self.patch_size**2 * self.out_channels
