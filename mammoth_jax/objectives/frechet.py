"""The Frechet distance between two sets of pictures, from the features of a network (Heusel et al. 2017, eq. 6).

Sums run over the whole of both sets, in float64 on the host.  With Inception's features it is the FID.
"""

import dataclasses

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Number, mean and scatter (summed outer products around the mean) of feature vectors seen so far."""

    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> "FeatureStatistics":
        """Those of one batch."""
        x = np.asarray(features, np.float64)
        mean = x.mean(axis=0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Those of both together (Chan et al. 1979); batches may be added in any grouping."""
        count = self.count + other.count
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return FeatureStatistics(
            count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between
        )

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased one.

        Raises:
          InputError: fewer than two vectors.
        """
        if self.count < 2:
            raise InputError(f"Frechet distance of {self.count} pictures: at least 2 are needed")
        return self.scatter / (self.count - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``: 0 for a set and itself, but for rounding."""
    root_a, root_b = _root(a.covariance), _root(b.covariance)
    # The trace of the product's root is the sum of the singular values of the roots' product: no complex
    # matrix root, and exact where a covariance is singular.
    shared = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance)
    return float(np.sum(np.square(a.mean - b.mean)) + spread - 2 * shared)


def _root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """A matrix ``r`` with ``r r^T`` equal to the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
