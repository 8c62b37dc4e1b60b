"""Synthetic videos that codecs like."""

from __future__ import annotations

import numpy as np


def pattern_video(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """u8 [T, H, W, 3] of soft moving blobs: easy for a video codec, different in every frame and place."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    video = np.full((frames, height, width, 3), 128.0)
    for _ in range(6):
        centre, speed = rng.uniform(0, (height, width)), rng.normal(0, 1.5, 2)
        color, spread = rng.uniform(-70, 70, 3), rng.uniform(0.15, 0.4) * height
        for t in range(frames):
            y, x = centre + speed * t
            video[t] += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / spread**2)[..., None] * color
    return np.clip(np.round(video), 0, 255).astype(np.uint8)
