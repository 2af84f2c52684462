"""What a vision tower reads: packed patches, and everything about their places that can be told beforehand.

Pictures and videos of any size are packed into rows of patches, padded at their ends to one of a few lengths, so that
one compiled program serves them all.  Sampling has one row for all prompts of a batch; training one for each row of
tokens, so that both are divided over devices alike.  Patches come in merge-block order: (frame, row of tokens, column
of tokens, row within the token, column within the token).  A frame attends to itself only: frames carry segment ids
from 1 on, and 0 marks the padding.  All of it is worked out on the host with NumPy.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float, Int
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.processing.vision_places import frame_cells, frame_segments, interpolation

AnyArray = Any
"""NumPy on the host, JAX inside a program."""
Grids = Sequence[Sequence[int]] | Int[np.ndarray, "pictures 3"]
"""Patches of each picture along time, height and width (``grid_thw``)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Qwen3VLVisionInputs:
    """Inputs of the Qwen3-VL tower: ``b`` rows of ``n`` patches, padding included.

    Attributes:
        patches: pixel values of each patch.
        rope_ids: row and column of each patch in its frame.
        frames: segment of each patch; 0 is padding.
        cells: the four cells of the learned position grid around each patch.
        cell_weights: the bilinear weight of each of them.
    """

    patches: Float[AnyArray, "b n p"]
    rope_ids: Int[AnyArray, "b n 2"]
    frames: Int[AnyArray, "b n"]
    cells: Int[AnyArray, "b n 4"]
    cell_weights: Float[AnyArray, "b n 4"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Qwen25VLVisionInputs:
    """Inputs of the Qwen2.5-VL tower: ``b`` rows of ``n`` patches, padding included, all in window order.

    Attributes:
        patches: pixel values of each patch.
        rope_ids: row and column of each patch in its frame.
        frames: segment of each patch in layers with full attention; 0 is padding.
        windows: segment of each patch in layers with windows; 0 is padding.
        restore: for each token in merge-block order its place in window order.
    """

    patches: Float[AnyArray, "b n p"]
    rope_ids: Int[AnyArray, "b n 2"]
    frames: Int[AnyArray, "b n"]
    windows: Int[AnyArray, "b n"]
    restore: Int[AnyArray, "b m"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VisionFeatures:
    """What a tower gives the decoder: ``m`` tokens a row; those of the padding hold nothing of use.

    Attributes:
        tokens: takes the place of the placeholders' embeddings.
        deepstack: is added to the hidden states of the same places after the first layers, one array a layer.
    """

    tokens: Float[Array, "b m d"]
    deepstack: Float[Array, "taps b m d"]


def qwen3_inputs(
    config: Qwen3VLVisionConfig,
    patches: Float[np.ndarray, "n p"],
    grids: Grids,
    lengths: Sequence[int] | None = None,
) -> Qwen3VLVisionInputs:
    """Packs the patches of all pictures into one row, one after the other, for the Qwen3-VL tower.

    ``lengths`` are the padded lengths to choose from, in patches; without it nothing is padded.

    Raises:
      InputError: grids and patches do not fit each other, the tower or the lengths.
    """
    checked = check_grids(config, patches, grids)
    length = padded_length(len(patches), lengths, config.spatial_merge_size**2)
    rope = [frame_cells(grid, config.spatial_merge_size) for grid in checked]
    around = [interpolation(ids, grid, config.position_side) for ids, grid in zip(rope, checked, strict=True)]
    return Qwen3VLVisionInputs(
        pad(patches.astype(np.float32, copy=False), length)[None],
        pad(np.concatenate(rope), length)[None],
        pad(frame_segments(checked), length)[None],
        pad(np.concatenate([cells for cells, _ in around]), length)[None],
        pad(np.concatenate([weights for _, weights in around]), length)[None],
    )


def qwen25_inputs(
    config: Qwen25VLVisionConfig,
    patches: Float[np.ndarray, "n p"],
    grids: Grids,
    lengths: Sequence[int] | None = None,
) -> Qwen25VLVisionInputs:
    """Packs the patches of all pictures into one row, in window order, for the Qwen2.5-VL tower.

    ``lengths`` are the padded lengths to choose from, in patches; without it nothing is padded.

    Raises:
      InputError: grids and patches do not fit each other, the tower or the lengths.
    """
    checked = check_grids(config, patches, grids)
    merge = config.spatial_merge_size
    length = padded_length(len(patches), lengths, merge**2)
    order, windows = window_order(checked, merge, config.window_tokens)
    patch_order = (order[:, None] * merge**2 + np.arange(merge**2)).reshape(-1)
    rope = np.concatenate([frame_cells(grid, merge) for grid in checked])
    restore = np.arange(length // merge**2, dtype=np.int32)
    restore[order] = np.arange(len(order))
    return Qwen25VLVisionInputs(
        pad(patches[patch_order].astype(np.float32, copy=False), length)[None],
        pad(rope[patch_order], length)[None],
        pad(frame_segments(checked)[patch_order], length)[None],
        pad(np.repeat(windows, merge**2), length)[None],
        restore[None],
    )


def check_grids(
    config: Qwen3VLVisionConfig | Qwen25VLVisionConfig, patches: Float[np.ndarray, "n p"], grids: Grids
) -> Int[np.ndarray, "pictures 3"]:
    """The grids as an array.

    Raises:
      InputError: no picture, a side that is not a multiple of the merged patches, or patches of another number or
        size than the tower's.
    """
    checked = np.asarray(grids, np.int64).reshape(-1, 3)
    merge = config.spatial_merge_size
    if not len(checked):
        raise InputError("no picture was given to the vision tower; expected at least one grid of patches")
    for grid in checked.tolist():
        if min(grid) < 1 or grid[1] % merge or grid[2] % merge:
            raise InputError(
                f"a grid of {grid[0]}x{grid[1]}x{grid[2]} patches: expected positive sides, height and width "
                f"multiples of {merge}; resize the picture first"
            )
    count = int(checked.prod(axis=1).sum())
    if patches.shape != (count, config.patch_values):
        raise InputError(
            f"patches of shape {list(patches.shape)}: the grids ask for {count} of {config.patch_values} values"
        )
    return checked


def padded_length(count: int, lengths: Sequence[int] | None, unit: int) -> int:
    """The smallest of ``lengths`` that holds ``count`` patches; ``count`` itself without lengths.

    Raises:
      InputError: none is long enough, or one is not a multiple of the ``unit`` patches of a token.
    """
    if lengths is None:
        return count
    for length in sorted(lengths):
        if length % unit:
            raise InputError(f"padded length {length} is not a multiple of the {unit} patches of a token")
        if length >= count:
            return length
    raise InputError(
        f"pictures of {count} patches exceed the longest padded length, {max(lengths, default=0)}; "
        "use fewer or smaller pictures"
    )


def pad(x: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the rows of ``x`` up to ``length``."""
    return np.pad(x, ((0, length - len(x)), *[(0, 0)] * (x.ndim - 1)))


def window_order(
    grids: Int[np.ndarray, "pictures 3"], merge: int, window: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """The tokens (merged patches) of all pictures ordered by attention window.

    A frame is cut into windows of ``window x window`` tokens from its top left corner, smaller at its right and lower
    border; windows go in raster order frame by frame, and so do the tokens in a window.

    Returns the tokens in window order, and the window number of each of them, from 1 on.
    """
    numbers, first = [], 1
    for frames, rows, cols in grids.tolist():
        frame, row, col = np.indices((frames, rows // merge, cols // merge)).reshape(3, -1)
        down, across = -(-(rows // merge) // window), -(-(cols // merge) // window)
        numbers.append(first + (frame * down + row // window) * across + col // window)
        first += frames * down * across
    number = np.concatenate(numbers).astype(np.int32)
    order = np.argsort(number, kind="stable").astype(np.int32)
    return order, number[order]
