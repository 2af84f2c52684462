"""All kinds of sources that a configuration can name, and how a tree of them is opened."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.folder import Folder
from mammoth_jax.data.json_records import AnnotationLists, JsonRecords
from mammoth_jax.data.mixing import Branch, Leaf
from mammoth_jax.data.parquet import Parquet
from mammoth_jax.data.precomputed import Precomputed
from mammoth_jax.data.record import ShardedSource, Source
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.data.tars import Tars


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Scenes of the synthetic world, rendered when they are read."""

    split: Literal["train", "heldout"] = "train"
    picture_size: int | tuple[int, int] = 64
    seed: int = 0
    length: int = 1_000_000
    weight: float = 1.0

    def open(self) -> Source:
        """The scenes; nothing is rendered yet."""
        return SyntheticScenes(
            split=self.split, picture_size=self.picture_size, seed=self.seed, length=self.length
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Sources, or mixtures, each with its part of this mixture's ``weight``."""

    sources: "tuple[SourceConfig, ...]"
    weight: float = 1.0


SourceConfig = Folder | Tars | Parquet | JsonRecords | AnnotationLists | Synthetic | Precomputed | Mixture


def open_sources(
    configs: Sequence[SourceConfig], models: Mapping[str, str]
) -> tuple[list[Source], list[str], Leaf | Branch]:
    """Opens a tree of sources: all of them, a unique name each, and how they are mixed.

    ``models`` are fingerprints by role, for sources of precomputed arrays.

    Raises:
      InputError: there is none, or one of them is missing, empty or of other models.
    """
    sources: list[Source] = []

    def plan(configs: Sequence[SourceConfig]) -> Leaf | Branch:
        if not configs:
            raise InputError("data: no sources; name at least one")
        parts = tuple(grow(config) for config in configs)
        return Branch(parts, tuple(config.weight for config in configs))

    def grow(config: SourceConfig) -> Leaf | Branch:
        if isinstance(config, Mixture):
            return plan(config.sources)
        source = config.open(models) if isinstance(config, Precomputed) else config.open()
        if not len(source):
            raise InputError(f"source {source.name} is empty")
        sources.append(source)
        blocks = source.blocks if isinstance(source, ShardedSource) else None
        return Leaf(len(sources) - 1, len(source), None if blocks is None else tuple(blocks))

    tree = plan(configs)
    return sources, unique_names([s.name for s in sources]), tree


def unique_names(names: Sequence[str]) -> list[str]:
    """Names, with a number where one occurs again."""
    return [n if (k := names[:i].count(n)) == 0 else f"{n}#{k + 1}" for i, n in enumerate(names)]
