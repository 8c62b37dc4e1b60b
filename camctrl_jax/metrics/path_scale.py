"""How far along the asked path a clip went: the scale of the path whose true render fits it best.

Unlike a pose estimator it needs a renderer and no texture, and unlike the PSNR along the true path alone it
is not moved by blur: blur lowers the PSNR at every scale alike. 1 is wanted; 0 is a camera that stood still.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.psnr import psnr


def best_path_scale(video: np.ndarray, renders: np.ndarray, scales: Sequence[float]) -> float:
    """alpha*, the argmax over alpha of PSNR(video, render of the path scaled by alpha).

    Between the scales that were rendered, the best lies on the parabola through the best one and its
    neighbours; at either end it is that end, which then is a bound only.

    Args:
        video: u8 [T, H, W, C].
        renders: u8 [A, T, H, W, C], of the same world along its path times each scale.
        scales: A increasing numbers, 3 or more.
    """
    scales = np.asarray(scales, np.float64)
    if len(scales) < 3 or len(scales) != len(renders) or (np.diff(scales) <= 0).any():
        raise InvalidValue(
            f"{len(renders)} renders for scales {scales.tolist()}: expected one each for 3 or more scales "
            "that increase."
        )
    fit = psnr(np.broadcast_to(video, np.shape(renders)), renders)  # [A]
    best = int(fit.argmax())
    if best in (0, len(scales) - 1):
        return float(scales[best])
    around = slice(best - 1, best + 2)
    curve = np.polynomial.Polynomial.fit(scales[around], fit[around], 2)
    top = curve.deriv().roots()
    return float(top[0].real) if len(top) else float(scales[best])
