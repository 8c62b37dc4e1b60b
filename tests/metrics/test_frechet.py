"""Frechet distance against an independent float64 reference, and merging."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance, merge


def features(count, channels, seed, shift=0.0):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(channels, channels))
    return generator.normal(size=(count, channels)) @ mixing + shift


def reference(a, b):
    """The textbook formula with SciPy's matrix square root."""
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    apart = a.mean(axis=0) - b.mean(axis=0)
    return apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root)


@pytest.mark.parametrize(("channels", "shift"), [(4, 0.0), (32, 0.5), (64, 3.0)])
def test_the_distance_is_that_of_the_textbook(channels, shift):
    a, b = features(400, channels, 0), 1.3 * features(300, channels, 1, shift)
    found = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
    assert found == pytest.approx(reference(a, b), rel=1e-6)


def test_known_gaussians():
    """In one dimension it is (m1 - m2)^2 + (s1 - s2)^2."""
    a = FeatureStatistics(10, np.array([1.0]), np.array([[9 * 4.0]]))
    b = FeatureStatistics(10, np.array([3.0]), np.array([[9 * 25.0]]))
    assert frechet_distance(a, b) == pytest.approx(4.0 + 9.0)


def test_fewer_samples_than_channels_need_no_regularisation():
    a, b = FeatureStatistics.of(features(10, 64, 0)), FeatureStatistics.of(features(10, 64, 1))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6 * np.trace(a.covariance))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_merged_parts_equal_the_whole():
    whole = features(101, 16, 0, shift=1e4)
    parts = merge(FeatureStatistics.of(part) for part in np.split(whole, (1, 40, 77)))
    everything = FeatureStatistics.of(whole)
    assert parts.count == 101
    np.testing.assert_allclose(parts.mean, everything.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, everything.covariance, rtol=1e-9)
    other = FeatureStatistics.of(features(50, 16, 3))
    assert frechet_distance(parts, other) == pytest.approx(frechet_distance(everything, other), rel=1e-9)


def test_what_cannot_be_compared_is_named():
    with pytest.raises(InvalidValue, match="NaN"):
        FeatureStatistics.of(np.array([[np.nan]]))
    with pytest.raises(InvalidValue, match="single sample"):
        _ = FeatureStatistics.of(np.zeros((1, 3))).covariance
    with pytest.raises(InvalidValue, match="3 and of 4 channels"):
        frechet_distance(FeatureStatistics.of(np.zeros((2, 3))), FeatureStatistics.of(np.zeros((2, 4))))
