"""The pictures that a run trains on, read by each of its hosts."""

from typing import Any

import jax
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.loader import DataConfig, Loader


class PictureBatches:
    """A loader as the training loop wants it."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def __next__(self) -> dict[str, np.ndarray]:
        """``picture``: uint8, ``[rows, height, width, 3]``."""
        return {"picture": next(self._loader)["picture"]}

    def state(self) -> dict[str, Any]:
        """This host's position."""
        return self._loader.state()

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Continues after the positions of all hosts, however many there were."""
        self._loader.restore(states)

    def report(self) -> dict[str, float]:
        """This host's counts by source."""
        return self._loader.report()

    def close(self) -> None:
        """Stops the workers."""
        self._loader.close()


def open_batches(config: DataConfig, batch_size: int, seed: int) -> PictureBatches:
    """This host's part of batches of ``batch_size`` rows over all hosts.

    Raises:
      InputError: the rows do not divide by the hosts, or a source is missing, empty or too broken.
    """
    hosts = jax.process_count()
    if batch_size % hosts:
        raise InputError(
            f"run.batch_size {batch_size} does not divide by {hosts} hosts; use a multiple of it"
        )
    return PictureBatches(
        Loader(
            config,
            batch_size=batch_size // hosts,
            seed=seed,
            process_index=jax.process_index(),
            process_count=hosts,
        )
    )
