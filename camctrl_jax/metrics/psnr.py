"""Peak signal-to-noise ratio of videos, in decibels."""

from __future__ import annotations

from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue

CEILING_DB = 100.0  # what identical videos score, so that means stay finite


def psnr_of_error(mean_squared_error: Any, peak: float) -> Any:
    """PSNR of a mean squared error: 10 log10(peak^2 / error).

    Args:
        mean_squared_error: a NumPy array or, inside ``jax.jit`` too, a JAX array, of any shape.
        peak: the largest possible value minus the smallest, in the same unit; 2 for videos in [-1, 1].

    Returns:
        dB, of the same shape and kind, at most ``CEILING_DB``.
    """
    floor = peak**2 * 10.0 ** (-CEILING_DB / 10.0)
    # Methods and operators that both kinds of array have: no import of JAX where there is none.
    namespace = mean_squared_error.__array_namespace__()
    return 10.0 * namespace.log10(peak**2 / namespace.maximum(mean_squared_error, floor))


def psnr(
    video: np.ndarray, truth: np.ndarray, *, clip_dims: int = 4, peak: float | None = None
) -> np.ndarray:
    """PSNR of each clip: 10 log10(peak^2 / MSE), the squared error averaged over the whole clip.

    Averaging the error before the logarithm gives a bad frame its full weight; the mean of ``frame_psnr``
    is the other common definition and is never smaller.

    Args:
        video: u8 or float [..., T, H, W, C].
        truth: the same shape and dtype.
        clip_dims: how many trailing axes are averaged; 3 gives a value per frame.
        peak: the largest possible value minus the smallest; 255 for u8, required for floats (2 for [-1, 1]).

    Returns:
        f64 [...], at most ``CEILING_DB``.

    Raises:
        ValueError: other shapes or dtypes, floats without a peak, or values that are not finite.
    """
    video, truth = np.asarray(video), np.asarray(truth)
    if video.shape != truth.shape or video.dtype != truth.dtype:
        raise InvalidValue(
            f"PSNR of {video.dtype}{list(video.shape)} against {truth.dtype}{list(truth.shape)}: "
            "both videos need the same shape and dtype."
        )
    if video.ndim < clip_dims or video.size == 0:
        raise InvalidValue(
            f"PSNR over {clip_dims} axes of an array of shape {list(video.shape)} is undefined."
        )
    if peak is None:
        if video.dtype != np.uint8:
            raise InvalidValue(
                f"PSNR of {video.dtype} needs its peak, for example peak=2.0 for values in [-1, 1]."
            )
        peak = 255.0
    axes = tuple(range(-clip_dims, 0))
    error = np.mean(np.square(video.astype(np.float64) - truth.astype(np.float64)), axis=axes)
    if not np.all(np.isfinite(error)):
        raise InvalidValue("PSNR of values that are not finite (NaN or infinity) is undefined.")
    return psnr_of_error(error, peak)


def frame_psnr(video: np.ndarray, truth: np.ndarray, *, peak: float | None = None) -> np.ndarray:
    """PSNR of each frame, f64 [..., T]; arguments as for ``psnr``."""
    return psnr(video, truth, clip_dims=3, peak=peak)
