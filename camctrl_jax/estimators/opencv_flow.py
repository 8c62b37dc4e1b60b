"""Optical flow by OpenCV's DIS, and robust two-view geometry; the only file that imports OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.programs import checked_pair
from camctrl_jax.estimators.protocols import Fingerprint
from camctrl_jax.extras import require

cv2 = require("cv2", extra="eval")

PRESETS = ("ultrafast", "fast", "medium")
_SMALLEST = 32  # pixels a side: DIS needs a pyramid of two levels of 8-pixel patches


@dataclass(frozen=True)
class DisFlow:
    """Dense inverse search (Kroeger et al. 2016) with OpenCV's variational refinement: no weights,
    milliseconds.

    Large motions of small things and pictures without texture are beyond it: where nothing is seen to move it
    says what its neighbourhood does.

    Attributes:
        preset: "ultrafast", "fast" or "medium".
    """

    preset: str = "medium"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InvalidValue(f"preset is {self.preset!r}; expected one of {PRESETS}.")

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("DIS flow", f"OpenCV {cv2.__version__}", (("preset", self.preset),))

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """See :class:`~camctrl_jax.estimators.protocols.OpticalFlow`.

        Raises:
            InvalidValue: other shapes, or pictures smaller than 32 pixels a side.
        """
        a, b = checked_pair(a, b)
        if min(a.shape[1:3]) < _SMALLEST:
            raise InvalidValue(
                f"DIS flow needs {_SMALLEST} pixels a side or more, got {a.shape[1]} x {a.shape[2]}."
            )
        return np.stack([self.of_greys(grey(x), grey(y)) for x, y in zip(a, b, strict=True)])

    def of_greys(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Flow f32 [H, W, 2] between two grey pictures u8 [H, W]."""
        # A new one for each pair: an old one starts from the flow that it found last.
        search = cv2.DISOpticalFlow_create(PRESETS.index(self.preset))
        return search.calc(a, b, None)


def grey(picture: np.ndarray) -> np.ndarray:
    """u8 [H, W] of u8 [H, W, 3] RGB."""
    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture u8 [H, W] in another size: areas are averaged on the way down."""
    smaller = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def texture(picture: np.ndarray) -> np.ndarray:
    """Mean gradient f32 [H, W] of the 9 x 9 neighbourhood in a picture u8 [H, W], grey levels a pixel."""
    right = cv2.Sobel(picture, cv2.CV_32F, 1, 0) / 8.0
    down = cv2.Sobel(picture, cv2.CV_32F, 0, 1) / 8.0
    return cv2.blur(np.hypot(right, down), (9, 9))


def enlarged_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask bool [h, w] at [height, width]: a pixel takes the value of the one that covers it."""
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def sampled(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """A field f32 [H, W, C] at places f32 [H, W, 2] (pixel indices), bilinear; zero outside."""
    xy = np.ascontiguousarray(xy, np.float32)
    return cv2.remap(field, xy[..., 0], xy[..., 1], cv2.INTER_LINEAR)


def cleaned(mask: np.ndarray, least: int) -> np.ndarray:
    """A mask bool [H, W] without single pixels and gaps, and without parts of fewer than ``least`` pixels."""
    kernel = np.ones((3, 3), np.uint8)
    picture = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    picture = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, kernel)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(picture, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= least
    large[0] = False
    return large[labels]


def fundamental(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray] | None:
    """F [3, 3] with ``b^T F a = 0`` of most of the points f64 [N, 2], and its inliers bool [N]; None if there
    is none.

    OpenCV raises on degenerate points, and may give three solutions or none: all of that is None here.
    """
    if len(a) < 8:
        return None
    try:
        matrix, inliers = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, threshold, 0.999, 2000)
    except cv2.error:
        return None
    if matrix is None or matrix.shape != (3, 3) or inliers is None or not np.isfinite(matrix).all():
        return None
    return matrix, inliers.ravel() > 0


def homography(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray] | None:
    """H [3, 3] with ``b ~ H a`` of most of the points f64 [N, 2], and its inliers bool [N]; None if there is
    none."""
    if len(a) < 4:
        return None
    try:
        matrix, inliers = cv2.findHomography(
            a, b, cv2.USAC_MAGSAC, threshold, maxIters=2000, confidence=0.999
        )
    except cv2.error:
        return None
    if matrix is None or inliers is None or not np.isfinite(matrix).all():
        return None
    return matrix, inliers.ravel() > 0
