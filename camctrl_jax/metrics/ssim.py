"""Structural similarity of pictures (Wang, Bovik, Sheikh and Simoncelli 2004)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from camctrl_jax.errors import InvalidValue

_SIGMA, _RADIUS = 1.5, 5  # the paper's window of 11 by 11 pixels
_STABILISERS = (0.01**2, 0.03**2)


def ssim(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean SSIM of frames u8 [..., H, W, C] against the truth, f64 [...]; 1 for equal pictures.

    The paper's Gaussian window on each channel, averaged over channels and over the pixels whose window lies
    inside the picture, with unbiased covariances left out (weights that sum to 1).
    """
    video, truth = np.asarray(video), np.asarray(truth)
    if video.shape != truth.shape or video.dtype != np.uint8 or truth.dtype != np.uint8 or video.ndim < 3:
        raise InvalidValue(
            f"SSIM of {video.dtype}{list(video.shape)} against {truth.dtype}{list(truth.shape)}: both need "
            "the same shape [..., H, W, C] and uint8."
        )
    if min(video.shape[-3:-1]) < 2 * _RADIUS + 1:
        raise InvalidValue(
            f"SSIM needs pictures of {2 * _RADIUS + 1} pixels or more; these have {video.shape[-3:-1]}."
        )
    x, y = video.astype(np.float64) / 255.0, truth.astype(np.float64) / 255.0
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    first, second = _STABILISERS
    value = ((2 * mean_x * mean_y + first) * (2 * covariance + second)) / (
        (mean_x**2 + mean_y**2 + first) * (variance_x + variance_y + second)
    )
    inside = slice(_RADIUS, -_RADIUS)
    return value[..., inside, inside, :].mean(axis=(-3, -2, -1))


def _window(pictures: np.ndarray) -> np.ndarray:
    sigma = (0.0,) * (pictures.ndim - 3) + (_SIGMA, _SIGMA, 0.0)
    return gaussian_filter(pictures, sigma, truncate=_RADIUS / _SIGMA)
