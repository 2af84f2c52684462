"""Codes and latents of a whole source, written once into shards that training reads instead of pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from checkpoint_convert.folder import ModelFolder
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.core.progress import Progress
from mammoth_jax.core.types import Array, UInt8
from mammoth_jax.data.buckets import EachToShape, ToShape
from mammoth_jax.data.decoding import Processes, Sample, Threads, read_in_order
from mammoth_jax.data.position import HostShare
from mammoth_jax.data.record import Source
from mammoth_jax.data.shapes import AspectBuckets, FixedShape
from mammoth_jax.data.shard_writer import (
    Description,
    Model,
    fingerprint,
    finish_shards,
    missing_shards,
    picture_key,
    start_shards,
    write_shard,
)
from mammoth_jax.data.sources import SourceConfig, open_sources
from mammoth_jax.data.synthetic.tasks import (
    SyntheticDrawings,
    SyntheticEdits,
    SyntheticRiddles,
    SyntheticTask,
)
from mammoth_jax.data.tally import BadInput, Tally
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.config_file import run_config
from mammoth_jax.training.runs import is_run
from mammoth_jax.training.tokenizer_kinds import KINDS
from mammoth_jax.training.tokenizer_weights import load_tokenizer

_STORED = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precompute:
    """What to compute of which pictures: all of each record's.

    ``mammothtok`` and ``vae`` name model folders or training runs; one may be null.  Latents are stored as the
    posterior's ``mean`` and ``logvar`` in ``latent_dtype``, codes as ``codes``.  Pictures are cropped in the middle.
    """

    source: SourceConfig | SyntheticDrawings | SyntheticEdits | SyntheticRiddles
    shape: FixedShape | AspectBuckets
    mammothtok: str | None = None
    vae: str | None = None
    latent_dtype: Literal["float32", "bfloat16"] = "float32"
    shard_size: int = 1024
    batch_size: int = 32
    workers: Threads | Processes = Threads()
    bad_input: BadInput = BadInput()

    def __post_init__(self) -> None:
        if self.mammothtok is None and self.vae is None:
            raise InputError(
                "precompute: give mammothtok, vae or both; each is a model folder or a training run"
            )
        if min(self.shard_size, self.batch_size) < 1:
            raise InputError(
                f"precompute: shard_size {self.shard_size} and batch_size {self.batch_size} must be at least 1"
            )

    @property
    def paths(self) -> dict[str, str]:
        """Where each model comes from, by role."""
        given = {"mammothtok": self.mammothtok, "vae": self.vae}
        return {role: path for role, path in given.items() if path is not None}


def model_fingerprint(module: nnx.Module) -> str:
    """What shards remember of the model that made them."""
    return fingerprint({name: np.asarray(p[...]) for name, p in named_parameters(module).items()})


def precompute(config: Precompute, folder: Path, mesh: Mesh, progress: Progress) -> dict[str, Any]:
    """Writes the shards that are missing, then the manifest; a finished shard is not made again.

    Returns:
      The manifest: shards, records, and how many were left out.

    Raises:
      InputError: a model or the source cannot be opened, too many pictures are unreadable, or ``folder`` holds the
        shards of something else.
    """
    given = config.source
    source = given if isinstance(given, SyntheticTask) else open_sources((given,), {})[0][0]
    models = {role: _load(path, role, mesh) for role, path in config.paths.items()}
    description = Description(
        source=source.name,
        length=len(source),
        shard_size=config.shard_size,
        models=tuple(Model(role=r, fingerprint=model_fingerprint(m)) for r, m in models.items()),
        contents=f"{config.shape}; latents {config.latent_dtype}",
    )
    start_shards(folder, description)
    encode = _Encoder(models, config, mesh)
    tally = Tally([source.name], config.bad_input)
    share = HostShare(jax.process_index(), jax.process_count())
    for shard in missing_shards(folder, description, share):
        progress("shards", shard, description.shards)
        numbers = description.records(shard)
        keys, pictures, left_out = _read(source, numbers, config, tally)
        write_shard(folder, shard, keys, encode(pictures), left_out)
    progress("shards", description.shards, description.shards)
    return (
        finish_shards(folder)
        if jax.process_count() == 1 or not list(missing_shards(folder, description))
        else {}
    )


def _load(path: str, role: str, mesh: Mesh) -> nnx.Module:
    config: MammothConfig = run_config(path).model if is_run(path) else ModelFolder.open(path).config
    return load_tokenizer(path, KINDS[role](config), mesh)


def _read(
    source: Source, numbers: range, config: Precompute, tally: Tally
) -> tuple[list[str], list[UInt8[np.ndarray, "rows cols 3"]], int]:
    """Keys and pictures of the records that can be read, in their order, and how many records were left out."""
    transform = EachToShape(ToShape(config.shape, config.shape.shapes()))
    keys, pictures, delivered = [], [], 0
    for element in read_in_order(source, numbers, transform, config.workers, config.batch_size):
        if isinstance(element, Sample):
            tally.add(0, "delivered")
            key = source[element.number].key
            keys += [picture_key(key, name) for name in element.arrays]
            pictures += element.arrays.values()
            delivered += 1
        elif element.fate == "bad":
            tally.add_bad(0, element.message)
        else:
            tally.add(0, element.fate)
    return keys, pictures, len(numbers) - delivered


class _Encoder:
    """Batches of one size and shape through the models; the rest of a batch is filled up and dropped."""

    def __init__(self, models: Mapping[str, Any], config: Precompute, mesh: Mesh):
        self._models, self._size = models, config.batch_size
        self._stored = _STORED[config.latent_dtype]
        self._everywhere = NamedSharding(mesh, PartitionSpec())

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        rows: list[dict[str, np.ndarray]] = [{} for _ in pictures]
        for shape in sorted({p.shape for p in pictures}):
            members = [i for i, p in enumerate(pictures) if p.shape == shape]
            for first in range(0, len(members), self._size):
                taken = members[first : first + self._size]
                batch = np.zeros((self._size, *shape), np.uint8)
                batch[: len(taken)] = [pictures[i] for i in taken]
                made = jax.device_get(_encode(self._models, jax.device_put(batch, self._everywhere)))
                for name, x in made.items():
                    for i, row in zip(taken, self._store(name, x), strict=False):
                        rows[i][name] = row
        return rows

    def _store(self, name: str, x: np.ndarray) -> np.ndarray:
        if name == "codes":
            return x.astype(np.uint16 if x.max() < 2**16 else np.uint32)
        return x.astype(self._stored)


@jax.jit
def _encode(models: dict[str, Any], picture: Array) -> dict[str, Array]:
    """``codes``, and ``mean`` and ``logvar`` of the latents (not scaled), of uint8 pictures."""
    pixels, out = as_float(picture), {}
    if "mammothtok" in models:
        out["codes"] = models["mammothtok"].encode(pixels)
    if "vae" in models:
        posterior = models["vae"].encode(pixels)
        out |= {"mean": posterior.mean, "logvar": posterior.logvar}
    return {name: jnp.asarray(x) for name, x in out.items()}
