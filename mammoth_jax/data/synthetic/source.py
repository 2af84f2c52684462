"""The world as a source of records: scene ``i`` depends on the seed, the split, the picture's size and ``i`` only."""

import dataclasses
import functools

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.record import Picture, Record
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.sampling import SMALLEST_SIDE, sample_scene
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import Split

_STREAMS: dict[Split, int] = {"train": 1, "heldout": 2}


@dataclasses.dataclass(frozen=True)
class SyntheticScenes:
    """``length`` scenes of a split; its own configuration.

    ``picture_size`` is the side of a square, or height and width, in pixels.  A record's key is unique among all
    splits, seeds and sizes; ``fields["scene"]`` is the :class:`Scene` and ``pictures[0]`` renders it.

    Raises:
      InputError: a side below 32 pixels, or a length below one.
    """

    split: Split = "train"
    picture_size: int | tuple[int, int] = 64
    seed: int = 0
    length: int = 1_000_000

    def __post_init__(self) -> None:
        if min(self.height_and_width) < SMALLEST_SIDE:
            raise InputError(
                f"picture_size {self.picture_size}: an item and a text need sides of at least {SMALLEST_SIDE} pixels"
            )
        if self.split not in _STREAMS:
            raise InputError(f"split {self.split!r}: expected one of {sorted(_STREAMS)}")
        if self.length < 1:
            raise InputError(f"length {self.length}: expected at least one scene")

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Sides of every picture, in pixels."""
        if isinstance(self.picture_size, int):
            return self.picture_size, self.picture_size
        return self.picture_size

    @property
    def name(self) -> str:
        """The world, its split and seed and the pictures' size."""
        height, width = self.height_and_width
        return f"synthetic/{self.split}/{self.seed}/{height}x{width}"

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene:
        """Scene ``index``.

        Raises:
          IndexError: outside ``[0, length)``.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return sample_scene(self.split, *self.height_and_width, Draws(self.seed, _STREAMS[self.split], index))

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        key = f"{self.name}/{index:08d}"
        picture = Picture(key, functools.partial(render, scene), self.height_and_width)
        return Record(key, self.name, (picture,), {"scene": scene})
