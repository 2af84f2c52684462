"""Sizes that a model can draw: pixels, token grids and latents."""

import dataclasses

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.config import MammothConfig

MAX_SIDE_TOKENS = 999  # the grid is written into the prompt; the release writes at most three digits


@dataclasses.dataclass(frozen=True)
class PictureSize:
    """A picture in pixels, in visual tokens and in patches of the diffusion transformer, each (rows, columns)."""

    pixels: tuple[int, int]
    tokens: tuple[int, int]
    patches: tuple[int, int]


def picture_size(
    config: MammothConfig, height: int, width: int, grid: tuple[int, int] | None = None
) -> PictureSize:
    """Checks a size and derives the others; ``grid`` is (columns, rows) of visual tokens, by default one for every
    ``pixels_per_token`` pixels.

    Raises:
      InputError: sides that the VAE and the patches do not divide, or a grid that is empty or too large.
    """
    step = config.pixel_step
    for name, side in (("height", height), ("width", width)):
        if side < step or side % step:
            low = max(step, side // step * step)
            raise InputError(
                f"{name} {side}: sides must be multiples of {step} pixels, e.g. {low} or {low + step}"
            )
    if grid is None:
        each = config.pixels_per_token
        if height % each or width % each:
            raise InputError(
                f"size {width}x{height}: the default token grid needs multiples of {each} pixels; give the grid, e.g. "
                f"--grid {max(1, width // each)}x{max(1, height // each)}"
            )
        grid = (width // each, height // each)
    cols, rows = grid
    if not (1 <= cols <= MAX_SIDE_TOKENS and 1 <= rows <= MAX_SIDE_TOKENS):
        raise InputError(f"token grid {cols}x{rows}: each side must be 1 to {MAX_SIDE_TOKENS} tokens")
    return PictureSize((height, width), (rows, cols), (height // step, width // step))
