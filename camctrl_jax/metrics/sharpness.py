"""How sharp pictures are, which PSNR does not say."""

from __future__ import annotations

import numpy as np


def gradient_energy(video: np.ndarray) -> np.ndarray:
    """Mean squared difference of neighbouring pixels of [..., T, H, W, C], squared grey levels. f64 [...].

    As a ratio to the truth's: 1 is as sharp, less is blurred, more is noisy. Noise raises it as detail does.
    """
    video = np.asarray(video, np.float64)
    axes = (-4, -3, -2, -1)
    return np.mean(np.diff(video, axis=-2) ** 2, axis=axes) + np.mean(np.diff(video, axis=-3) ** 2, axis=axes)
