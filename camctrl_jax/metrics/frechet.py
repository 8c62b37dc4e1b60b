"""Frechet distance between two sets of features, exact in float64, with statistics that can be merged.

``|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Dowson and Landau 1982; FID, FVD). It falls with the
number of samples: compare only distances of equally many, and print beside them what two halves of real data
give (the floor).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and scatter of features [N, D]; :meth:`merged` of parts is that of the whole.

    Attributes:
        count: N.
        mean: f64 [D].
        scatter: f64 [D, D], summed outer products of deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureStatistics:
        """Of features [N, D], N >= 1.

        Raises:
            InvalidValue: another shape, or values that are not finite.
        """
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or not len(features):
            raise InvalidValue(f"features have shape {list(features.shape)}; expected [samples, channels].")
        if not np.isfinite(features).all():
            raise InvalidValue("features hold NaN or infinity.")
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Of both sets together (Chan, Golub and LeVeque 1979)."""
        if self.mean.shape != other.mean.shape:
            raise InvalidValue(
                f"features of {len(self.mean)} and of {len(other.mean)} channels cannot be merged."
            )
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        return FeatureStatistics(count, self.mean + apart * (other.count / count), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """f64 [D, D], unbiased."""
        if self.count < 2:
            raise InvalidValue("the covariance of a single sample is not defined; give 2 or more.")
        return self.scatter / (self.count - 1)


def merge(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Of all parts together."""
    first, *others = parts
    for other in others:
        first = first.merged(other)
    return first


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """The squared Frechet distance of two Gaussians with these means and covariances.

    The trace of the root is the sum of singular values of ``A^(1/2) B^(1/2)``: no complex root and no
    regularisation, also where there are fewer samples than channels.
    """
    if a.mean.shape != b.mean.shape:
        raise InvalidValue(f"features of {len(a.mean)} and of {len(b.mean)} channels cannot be compared.")
    overlap = 2.0 * np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance) - overlap
    return float(max(distance, 0.0))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance; eigenvalues that are rounding are none."""
    values, vectors = np.linalg.eigh(covariance)
    rounding = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return (vectors * np.sqrt(np.where(values > rounding, values, 0.0))) @ vectors.T
