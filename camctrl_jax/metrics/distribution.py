"""Whether several samples of one scene are a sharp and honest distribution: neither blurred nor collapsed.

A mean of all possible outcomes has the best PSNR of all, and one outcome, repeated, may have a good one. The
energy score is proper: in expectation only the true distribution minimises it (Gneiting and Raftery 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue


def energy_score(samples: np.ndarray, truth: np.ndarray, *, patch: int = 8) -> np.ndarray:
    """``E|x - y| - 1/2 E|x - x'|`` on patches, root mean square in grey levels; lower is better.

    Args:
        samples: [S, ..., H, W, C], S >= 2 samples of one scene, of other seeds.
        truth: [..., H, W, C], one outcome.
        patch: pixels a side; what is left over at the right and at the bottom is not scored.

    Returns:
        f64 [...]: the mean over patches. Pairs x, x' are of different samples, so that it is unbiased.
    """
    samples, truth = _checked(samples, truth)
    patches, outcome = _patches(samples, patch), _patches(truth, patch)
    count = len(patches)
    to_truth = np.mean([_distance(sample, outcome) for sample in patches], axis=0)
    apart = np.mean(
        [_distance(patches[i], patches[j]) for i in range(count) for j in range(i + 1, count)], axis=0
    )
    return to_truth - 0.5 * apart


def _checked(samples: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    samples, truth = np.asarray(samples), np.asarray(truth)
    if samples.shape[1:] != truth.shape or len(samples) < 2 or truth.ndim < 3:
        raise InvalidValue(
            f"samples {list(samples.shape)} do not fit truth {list(truth.shape)}: expected "
            "[S, ..., H, W, C] with 2 samples or more, and [..., H, W, C]."
        )
    return samples.astype(np.float64), truth.astype(np.float64)


def _patches(video: np.ndarray, size: int) -> np.ndarray:
    """[..., H, W, C] -> [..., H / size, W / size, size * size * C]."""
    *lead, height, width, channels = video.shape
    rows, columns = height // size, width // size
    if min(rows, columns) < 1:
        raise InvalidValue(f"pictures of {height}x{width} hold no patch of {size}x{size} pixels.")
    cut = video[..., : rows * size, : columns * size, :]
    cut = cut.reshape(*lead, rows, size, columns, size, channels)
    return np.moveaxis(cut, -4, -3).reshape(*lead, rows, columns, -1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square difference of patches, averaged over the picture."""
    return np.sqrt(np.mean((a - b) ** 2, axis=-1)).mean(axis=(-2, -1))


@dataclass(frozen=True)
class Spread:
    """Variance over seeds against error; sums, so parts add up.

    Attributes:
        variance: summed unbiased variance over samples.
        error: summed squared error of the samples' mean.
        samples: S.
        values: how many values were summed.
    """

    variance: float
    error: float
    samples: int
    values: int

    @classmethod
    def of(cls, samples: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> Spread:
        """Of samples [S, ..., H, W, C] of one scene, inside ``region`` bool [..., H, W] or everywhere."""
        samples, truth = _checked(samples, truth)
        variance = samples.var(axis=0, ddof=1)
        error = (samples.mean(axis=0) - truth) ** 2
        if region is not None:
            variance, error = variance[region], error[region]
        return cls(float(variance.sum()), float(error.sum()), len(samples), variance.size)

    def __add__(self, other: Spread) -> Spread:
        if self.samples != other.samples:
            raise InvalidValue(f"spreads over {self.samples} and {other.samples} samples cannot be added.")
        return Spread(
            self.variance + other.variance,
            self.error + other.error,
            self.samples,
            self.values + other.values,
        )

    @property
    def per_value(self) -> float | None:
        """Mean variance over samples, squared grey levels."""
        return self.variance / self.values if self.values else None

    @property
    def spread_over_skill(self) -> float | None:
        """``sqrt((1 + 1/S) variance / error)``: 1 if truth looks like one more sample, 0 for a collapse."""
        if not self.error:
            return None
        return float(np.sqrt((1.0 + 1.0 / self.samples) * self.variance / self.error))
