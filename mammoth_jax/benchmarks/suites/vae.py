"""``vae``: latents of a batch to pixels."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from mammoth_jax.benchmarks.measurement import BenchSettings, Measurement, Meter, Work
from mammoth_jax.benchmarks.suites.task import itemsize, size_facts, task_size
from mammoth_jax.models.costs import vae_decode
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.programs import develop_program


@dataclasses.dataclass(frozen=True)
class Vae:
    """The decoder, tiled where the pipeline would tile."""

    name: str = "vae"
    summary: str = "latents to pixels: images/s"
    parts: frozenset[str] = frozenset({"vae"})

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """One case, ``decode``; what tiles compute twice is not counted as work."""
        config, size, tiling = loaded.config, task_size(loaded, settings), Tiling()
        grid, patch = size.patches, config.dit.patch_size
        shape = (settings.batch, grid[0] * grid[1], config.dit.patch_values)
        latents = jax.random.normal(jax.random.key(0), shape)
        rows = np.arange(settings.batch)

        def develop():
            return develop_program(
                loaded.model.vae, latents, rows, grid=grid, patch_size=patch, tiling=tiling
            )[0]

        cells = grid[0] * grid[1] * patch**2
        cost = vae_decode(config.vae, settings.batch, cells, itemsize(loaded.model.vae))
        tiled = cells > tiling.max_cells
        work = Work(cost, settings.batch, "images")
        yield meter.measure("decode", develop, work, **size_facts(loaded, settings), tiled=tiled)
