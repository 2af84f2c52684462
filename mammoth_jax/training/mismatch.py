"""Held-out samples put together wrongly: how much better is the model where words and pictures belong together?

A model that ignores what it is asked for is as good on these as on the true ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mammoth_jax.data.example import DRAWING, Example, Place, Task, Turn
from mammoth_jax.data.packing.workers import OpenPool
from mammoth_jax.data.task_source import ExampleSource


@dataclasses.dataclass(frozen=True, eq=False)
class OtherWords:
    """A source whose pictures are asked for in the words of the next record; other tasks stay as they are."""

    source: ExampleSource

    @property
    def name(self) -> str:
        """See :class:`ExampleSource`, as all below."""
        return self.source.name

    @property
    def task(self) -> Task:
        """The task."""
        return self.source.task

    @property
    def blocks(self) -> Sequence[int] | None:
        """The runs of records that are read together."""
        return self.source.blocks

    def __len__(self) -> int:
        return len(self.source)

    def example(self, index: int, place: Place) -> Example:
        """The picture of one record, the words of the next."""
        own = self.source.example(index, place)
        if own.task not in DRAWING:
            return own
        other = self.source.example((index + 1) % len(self.source), place)
        words = tuple(part for part in other.turns[0].content if isinstance(part, str))
        turn = Turn("user", (*own.pictures, *words))
        return dataclasses.replace(own, turns=(turn,), reasoning=other.reasoning)


def with_other_words(pools: Sequence[OpenPool]) -> list[OpenPool]:
    """The pools with :class:`OtherWords`, in the same order."""
    return [dataclasses.replace(pool, sources=[OtherWords(s) for s in pool.sources]) for pool in pools]


def with_other_targets(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A packed batch in which each drawn picture's latents are those of the next one in its row.

    Only rows of several pictures of one size can be mixed up so; the others stay as they are.
    """
    out = dict(batch)
    if "target_sample" not in batch:
        return out
    for name in ("target_mean", "target_std"):
        out[name] = batch[name].copy()
    for row, tokens in enumerate(batch["sample_tokens"]):
        drawn = int(np.count_nonzero(tokens))
        sizes = set(tokens[:drawn].tolist())
        if drawn > 1 and len(sizes) == 1 and _same_grids(batch, row, drawn):
            (size,) = sizes
            for name in ("target_mean", "target_std"):
                used = out[name][row, : drawn * size]
                out[name][row, : drawn * size] = np.roll(used, -size, axis=0)
    return out


def _same_grids(batch: Mapping[str, np.ndarray], row: int, drawn: int) -> bool:
    """Whether all pictures of a row have the same rows and columns."""
    sample, places = batch["target_sample"][row], batch["target_positions"][row]
    ends = {tuple(places[sample == s + 1][:, 1:].max(axis=0)) for s in range(drawn)}
    return len(ends) == 1
