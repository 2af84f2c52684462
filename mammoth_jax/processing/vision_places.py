"""Where the patches of pictures are, for a vision tower: frames, rows and columns, and the learned position grid.

Patches come in merge-block order: (frame, row of tokens, column of tokens, row within the token, column within the
token), as :mod:`mammoth_jax.processing.vision` cuts them.
"""

import numpy as np

from mammoth_jax.core.types import Float, Int


def frame_segments(grids: Int[np.ndarray, "pictures 3"]) -> Int[np.ndarray, " n"]:
    """The number of the frame of each patch, from 1 on."""
    sizes = np.repeat(grids[:, 1] * grids[:, 2], grids[:, 0])
    return np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)


def frame_cells(grid: Int[np.ndarray, "3"], merge: int) -> Int[np.ndarray, "n 2"]:
    """Row and column of each patch of a picture, in merge-block order."""
    frames, rows, cols = grid.tolist()
    raster = np.arange(rows * cols, dtype=np.int32).reshape(rows // merge, merge, cols // merge, merge)
    ordered = raster.transpose(0, 2, 1, 3).reshape(-1)
    return np.tile(np.stack([ordered // cols, ordered % cols], axis=1), (frames, 1))


def interpolation(
    cells: Int[np.ndarray, "n 2"], grid: Int[np.ndarray, "3"], side: int
) -> tuple[Int[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
    """Bilinear interpolation of a ``side x side`` position grid, whose corners lie on the picture's corner patches.

    Returns the flat indices of the four surrounding cells of each patch and their weights, float32.
    """
    low, high, share = [], [], []
    for axis in (0, 1):
        at = aligned_points(int(grid[axis + 1]), side)[cells[:, axis]]
        floor = at.astype(np.int32)
        low.append(floor)
        high.append(np.minimum(floor + 1, side - 1))
        share.append(at - floor.astype(np.float32))
    (top, left), (bottom, right), (down, across) = low, high, share
    indices = [top * side + left, top * side + right, bottom * side + left, bottom * side + right]
    one = np.float32(1)
    weights = [(one - down) * (one - across), (one - down) * across, down * (one - across), down * across]
    return np.stack(indices, axis=1), np.stack(weights, axis=1)


def aligned_points(count: int, side: int) -> Float[np.ndarray, " count"]:
    """``count`` even points from 0 to ``side - 1`` in float32, counted from the nearer end; 0 if there is one."""
    step = np.float32(side - 1) / np.float32(max(count - 1, 1))
    index = np.arange(count, dtype=np.float32)
    from_end = np.float32(side - 1) - step * (count - 1 - index)
    return np.where(index < max(count // 2, 1), step * index, from_end).astype(np.float32)
