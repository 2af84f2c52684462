"""Where the pictures of a drawn sample are in the diffusion transformer's joint sequence: (first, row, column).

Condition token ``i`` is at ``(i, i, i)``; pictures are told apart by their first coordinate
(``models/dit/positions.py`` places them on the device by the same rule while sampling).
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mammoth_jax.core.types import Int

GridSize = tuple[int, int]
"""Rows and columns of patches."""


class JointPositions(Protocol):
    """How the pictures of a sample are placed."""

    def place(self, condition: int, grids: Sequence[GridSize]) -> list[Int[np.ndarray, "n 3"]]:
        """Positions of each picture's patches, the references first and the target last.

        Args:
          condition: length of the condition.
          grids: of the pictures.
        """
        ...


@dataclasses.dataclass(frozen=True)
class OffsetFirst:
    """The release's: the first picture's first coordinate is the condition's length, and each reference moves the next
    one by its longer side."""

    def place(self, condition: int, grids: Sequence[GridSize]) -> list[Int[np.ndarray, "n 3"]]:
        """See :class:`JointPositions`."""
        offset, places = condition, []
        for grid in grids:
            places.append(_grid(offset, grid))
            offset += max(grid)
        return places


@dataclasses.dataclass(frozen=True)
class TimeFirst:
    """The paper's (section 2.4): the first axis is left to the time of denoising, which the step draws and writes
    there; here it is 0."""

    def place(self, condition: int, grids: Sequence[GridSize]) -> list[Int[np.ndarray, "n 3"]]:
        """See :class:`JointPositions`."""
        return [_grid(0, grid) for grid in grids]


def _grid(first: int, grid: GridSize) -> Int[np.ndarray, "n 3"]:
    """Patches in raster order."""
    rows, cols = np.indices(grid).reshape(2, -1)
    return np.stack([np.full_like(rows, first), rows, cols], axis=1).astype(np.int32)
