"""How parameters start: objects that fill an array on the host, from a seed and the parameter's name.

Filling on the host needs no compilation, holds one array at a time, and gives the same weights on any mesh.
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Initializer(Protocol):
    """Makes the start values of one parameter; equal objects mean equal distributions."""

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        """A float32 array; ``fans`` are the numbers of inputs and outputs of the map that it belongs to."""
        ...


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same value everywhere."""

    value: float

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        return np.full(shape, self.value, np.float32)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Gaussian with mean 0."""

    std: float

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        values = rng.standard_normal(tuple(shape), np.float32)
        values *= np.float32(self.std)
        return values


@dataclasses.dataclass(frozen=True)
class TruncatedNormal:
    """Gaussian with mean 0, drawn again outside two standard deviations of the untruncated law."""

    std: float

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        values = rng.standard_normal(tuple(shape), np.float32)
        outside = np.abs(values) > 2
        while outside.any():
            values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
            outside = np.abs(values) > 2
        values *= np.float32(self.std)
        return values


@dataclasses.dataclass(frozen=True)
class XavierUniform:
    """Uniform within ``sqrt(6 / (inputs + outputs))`` (Glorot and Bengio 2010)."""

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        return _uniform(rng, shape, math.sqrt(6 / sum(fans)))


@dataclasses.dataclass(frozen=True)
class FanInUniform:
    """Uniform within ``1 / sqrt(inputs)``, the usual start of linear layers and convolutions."""

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        return _uniform(rng, shape, math.sqrt(1 / fans[0]))


@dataclasses.dataclass(frozen=True)
class UnitRows:
    """Uniform in the cube, then scaled to length 1 along the last dimension (a codebook)."""

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], fans: tuple[int, int]) -> np.ndarray:
        values = _uniform(rng, shape, 1.0)
        return values / np.linalg.norm(values, axis=-1, keepdims=True)


ZEROS = Constant(0.0)
ONES = Constant(1.0)


def _uniform(rng: np.random.Generator, shape: Sequence[int], limit: float) -> np.ndarray:
    values = rng.random(tuple(shape), np.float32)
    values *= np.float32(2 * limit)
    values -= np.float32(limit)
    return values


def generator(seed: int, name: str) -> np.random.Generator:
    """The random generator of the parameter ``name``: it depends on nothing else."""
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
