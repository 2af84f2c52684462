"""Rope positions of token sequences on the host: three axes (time, row, column), pads excluded.

Text counts up equally on all axes.  The tokens of a picture start together at the next position and spread over time,
rows and columns; what follows starts one after the largest position of the three axes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Bool, Int

Grid = Sequence[int] | Int[np.ndarray, "3"]
"""Patches along time, height and width."""

PAD_POSITION = 1


def text_positions(valid: Bool[np.ndarray, "b s"]) -> tuple[Int[np.ndarray, "3 b s"], Int[np.ndarray, "b 1"]]:
    """Positions of rows without pictures, and what to add to a slot number to continue each row while decoding.

    A row counts its valid tokens from 0, equal on all three axes; pads get 1 (they are never attended to).
    """
    counted = np.cumsum(valid, axis=1) - 1
    positions = np.where(valid, counted, PAD_POSITION).astype(np.int32)
    deltas = positions.max(axis=1, keepdims=True) + 1 - valid.shape[1]
    return np.broadcast_to(positions, (3, *positions.shape)).copy(), deltas.astype(np.int32)


@runtime_checkable
class PictureBlocks(Protocol):
    """How a family of backbones places a picture: blocks of tokens that each start at the next position."""

    def image(self, grid: Grid) -> list[Int[np.ndarray, "3 n"]]:
        """Positions of an image's tokens, each block relative to its start."""
        ...

    def video(self, grid: Grid, seconds: float) -> list[Int[np.ndarray, "3 n"]]:
        """Positions of a video's tokens, each block relative to its start; ``seconds`` is the time of one step."""
        ...


@dataclasses.dataclass(frozen=True)
class Qwen3VLBlocks:
    """Each step of a video in time is a block of its own; timestamps are written between them as text.

    ``merge_size`` is the number of patches along a side that merge into one token.
    """

    merge_size: int = 2

    def image(self, grid: Grid) -> list[Int[np.ndarray, "3 n"]]:
        """One block."""
        return [_block(grid, self.merge_size, time_step=1)]

    def video(self, grid: Grid, seconds: float) -> list[Int[np.ndarray, "3 n"]]:
        """One block a step, all at time 0 of their block; ``seconds`` play no part."""
        return [_block((1, grid[1], grid[2]), self.merge_size, time_step=1) for _ in range(int(grid[0]))]


@dataclasses.dataclass(frozen=True)
class Qwen25VLBlocks:
    """A video is one block whose time axis counts ``tokens_per_second`` for every whole second.

    ``merge_size`` is the number of patches along a side that merge into one token.
    """

    merge_size: int = 2
    tokens_per_second: int = 2

    def image(self, grid: Grid) -> list[Int[np.ndarray, "3 n"]]:
        """One block without time."""
        return [_block(grid, self.merge_size, time_step=0)]

    def video(self, grid: Grid, seconds: float) -> list[Int[np.ndarray, "3 n"]]:
        """One block; the seconds of a step are cut to a whole number first, as released."""
        return [_block(grid, self.merge_size, time_step=int(seconds) * self.tokens_per_second)]


def _block(grid: Grid, merge: int, *, time_step: int) -> Int[np.ndarray, "3 n"]:
    frames, rows, cols = (int(size) for size in grid)
    place = np.indices((frames, rows // merge, cols // merge)).reshape(3, -1)
    place[0] *= time_step
    return place


@dataclasses.dataclass(frozen=True)
class RowPositions:
    """Positions of a batch of rows.

    Attributes:
        ids: positions on the three axes (time, row, column); pads hold 1.
        next: the position of the token that follows each row, equal on all axes.
    """

    ids: Int[np.ndarray, "3 b s"]
    next: Int[np.ndarray, " b"]

    @property
    def deltas(self) -> Int[np.ndarray, "b 1"]:
        """What to add to a slot number to continue each row, if its next token goes to slot ``s``."""
        return (self.next - self.ids.shape[2])[:, None].astype(np.int32)


def multimodal_positions(
    ids: Int[np.ndarray, "b s"],
    valid: Bool[np.ndarray, "b s"],
    blocks: PictureBlocks,
    *,
    image_token_id: int,
    video_token_id: int,
    images: Sequence[Grid] | Int[np.ndarray, "images 3"] = (),
    videos: Sequence[Grid] | Int[np.ndarray, "videos 3"] = (),
    seconds: Sequence[float] | None = None,
    start: Int[np.ndarray, " b"] | None = None,
) -> RowPositions:
    """Positions of rows with pictures and videos, padded at either end.

    Args:
      ids: token ids; a run of placeholders stands for each block of a picture.
      valid: False at pads.
      blocks: the family's way of placing pictures.
      images, videos: patches of each along time, height and width, in order of appearance, row after row.
      seconds: time between two steps of each video; 1 where not given.
      start: position of each row's first token (a later turn of a conversation); 0 where not given.

    Raises:
      InputError: the placeholders do not fit the pictures.
    """
    seconds = [1.0] * len(videos) if seconds is None else seconds
    if len(seconds) != len(videos):
        raise InputError(f"{len(seconds)} times for {len(videos)} videos; give the seconds of a step of each")
    waiting = {
        image_token_id: _Waiting("image", [block for grid in images for block in blocks.image(grid)]),
        video_token_id: _Waiting(
            "video",
            [b for grid, step in zip(videos, seconds, strict=True) for b in blocks.video(grid, float(step))],
        ),
    }
    positions = np.full((3, *ids.shape), PAD_POSITION, np.int32)
    following = np.zeros(len(ids), np.int64) if start is None else np.array(start, np.int64)
    for row in range(len(ids)):
        shown = np.flatnonzero(valid[row])
        for first, relative in _runs(ids[row, shown], waiting):
            placed = following[row] + relative
            positions[:, row, shown[first : first + relative.shape[1]]] = placed
            following[row] = placed.max() + 1
    for pictures in waiting.values():
        pictures.finish()
    return RowPositions(positions, following.astype(np.int32))


class _Waiting:
    """The blocks of one kind that have not appeared yet."""

    def __init__(self, kind: str, blocks: Sequence[Int[np.ndarray, "3 n"]]):
        self.kind = kind
        self.blocks = blocks
        self.taken = 0

    def take(self, tokens: Int[np.ndarray, " rest"]) -> Int[np.ndarray, "3 n"]:
        """The next block; the first of ``tokens`` must be its placeholders."""
        if self.taken == len(self.blocks):
            raise InputError(
                f"more {self.kind} placeholders than {self.kind}s: the prompt asks for more than the "
                f"{self.taken} blocks given; give more {self.kind}s or take placeholders out"
            )
        block = self.blocks[self.taken]
        size = block.shape[1]
        run = tokens[:size]
        if len(run) < size or not (run == run[0]).all():
            found = len(run) if (run == run[0]).all() else int(np.argmin(run == run[0]))
            raise InputError(
                f"{self.kind} block {self.taken} makes {size} tokens, but {found} placeholders stand for it; "
                "write one placeholder a token"
            )
        self.taken += 1
        return block

    def finish(self) -> None:
        """Checks that nothing is left."""
        if self.taken < len(self.blocks):
            raise InputError(
                f"fewer {self.kind} placeholders than {self.kind}s: {self.taken} of {len(self.blocks)} blocks have "
                "a place in the prompt; write placeholders for all"
            )


def _runs(
    tokens: Int[np.ndarray, " n"], waiting: dict[int, _Waiting]
) -> Iterator[tuple[int, Int[np.ndarray, "3 m"]]]:
    """The row cut into text and blocks: where each run begins, and its positions relative to the run's start."""
    placeholders = np.flatnonzero(np.isin(tokens, list(waiting)))
    at = 0
    while at < len(tokens):
        later = placeholders[np.searchsorted(placeholders, at) :]
        if len(later) and later[0] == at:
            run = waiting[int(tokens[at])].take(tokens[at:])
        else:
            stop = int(later[0]) if len(later) else len(tokens)
            run = np.broadcast_to(np.arange(stop - at), (3, stop - at))
        yield at, run
        at += run.shape[1]
