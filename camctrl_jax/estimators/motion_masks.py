"""Motion masks without weights: where optical flow breaks the geometry of a camera that moves among still
things.

For each frame and each of its two neighbours at about ``seconds``:

1. Both are made grey and at most ``height`` pixels high. DIS flow there and back; pixels whose way there and
back
   does not close are not judged (they are hidden, or the flow is wrong).
2. A fundamental matrix (MAGSAC) is fitted to a grid of judged pixels, and a homography. Where the homography
explains
   nearly as many (the camera turns, stands still, or sees a plane) it is used, since a fundamental matrix is
   then arbitrary; where neither can be fitted nothing is judged.
3. A pixel's residual is its Sampson distance to the epipolar line, or its distance to where the homography
puts it.

A pixel moves if its residual exceeds ``threshold`` pixels and ``times_median`` times the median residual, to
both neighbours where both are judged. Single pixels and parts below 0.1 % of the picture are dropped.

What moves along its epipolar line (in the direction of the camera, above all) cannot be seen this way, and if
a moving thing fills the picture it is taken for the world. Measured on ray-cast scenes of 128 x 192 with fast
movers: precision 0.52 to 0.97, recall 0.12 to 0.59, low where much moves; on this package's own worlds, whose
    textures are soft
and whose things move by a pixel or less a frame, precision about 0.5 and recall below 0.1
(docs/results/estimators.md). It takes the plainest motion out, no more: a working default, no substitute for
a learned segmenter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators import opencv_flow
from camctrl_jax.estimators.opencv_flow import DisFlow
from camctrl_jax.estimators.protocols import Fingerprint, MotionMasks, checked_frames

_GRID = 3000  # points that are fitted to
_LIKE_F = 0.9  # share of the fundamental matrix's inliers from which a homography is enough
_SMALLEST_PART = 1e-3


@dataclass(frozen=True)
class EpipolarMasks:
    """Masks from DIS flow and epipolar residuals; the module says how, and what it misses.

    Attributes:
        flow: the optical flow.
        height: pictures are made at most so many pixels high.
        seconds: distance of the neighbours; at least one frame.
        threshold: pixels, at the height that is worked in.
        times_median: a residual must also be so many times the median: flow of soft pictures is loose
            everywhere.
    """

    flow: DisFlow = field(default_factory=DisFlow)
    height: int = 240
    seconds: float = 0.1
    threshold: float = 1.0
    times_median: float = 4.0

    def fingerprint(self) -> Fingerprint:
        settings = tuple((k, v) for k, v in vars(self).items() if k != "flow")
        flow = self.flow.fingerprint()
        return Fingerprint("epipolar masks", f"1, {flow.version}", (*settings, ("flow", flow.digest)))

    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        """See :class:`~camctrl_jax.estimators.protocols.MotionSegmenter`; one frame alone shows no motion."""
        frames = checked_frames(frames)
        if not fps > 0:
            raise InvalidValue(f"fps is {fps}; expected frames per second, more than 0.")
        count, height, width = frames.shape[:3]
        step = max(1, round(self.seconds * fps))
        small = self._working_size(height, width)
        greys = [opencv_flow.resized(opencv_flow.grey(frame), *small) for frame in frames]
        residuals: list[list[np.ndarray]] = [[] for _ in greys]  # NaN where not judged
        for t in range(count - step):
            there, back = (
                self.flow.of_greys(greys[t], greys[t + step]),
                self.flow.of_greys(greys[t + step], greys[t]),
            )
            residuals[t].append(self._residual(there, back))
            residuals[t + step].append(self._residual(back, there))
        masks = [
            opencv_flow.enlarged_mask(self._moving(found, small), height, width)
            if found
            else np.zeros((height, width), bool)
            for found in residuals
        ]
        return MotionMasks(np.stack(masks))

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, self.height / height)
        size = round(height * scale), round(width * scale)
        if min(size) < 32:
            raise InvalidValue(
                f"motion masks need pictures of 32 pixels a side or more, got {height} x {width}."
            )
        return size

    def _residual(self, there: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Distance f32 [h, w] in pixels from what the camera's motion explains; NaN where it is not
        judged."""
        h, w = there.shape[:2]
        ys, xs = np.mgrid[:h, :w].astype(np.float32)
        ends = np.stack([xs, ys], axis=-1) + there
        returned = there + opencv_flow.sampled(back, ends)
        lengths = (there**2).sum(-1) + (back**2).sum(-1)
        judged = (returned**2).sum(-1) < 0.01 * lengths + 0.5
        judged &= (
            (ends[..., 0] >= 0) & (ends[..., 0] <= w - 1) & (ends[..., 1] >= 0) & (ends[..., 1] <= h - 1)
        )
        a = np.stack([xs, ys], axis=-1)[judged].astype(np.float64)
        b = ends[judged].astype(np.float64)
        residual = np.full((h, w), np.nan, np.float32)
        stride = max(1, len(a) // _GRID)
        epipolar = opencv_flow.fundamental(a[::stride], b[::stride], self.threshold)
        plane = opencv_flow.homography(a[::stride], b[::stride], self.threshold)
        if plane is not None and (epipolar is None or plane[1].sum() >= _LIKE_F * epipolar[1].sum()):
            residual[judged] = _transfer_distance(plane[0], a, b)
        elif epipolar is not None:
            residual[judged] = _sampson_distance(epipolar[0], a, b)
        return residual

    def _moving(self, residuals: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Where all neighbours that judge a pixel (one at least) find that it moves."""
        moving, judged_by_any = np.ones(size, bool), np.zeros(size, bool)
        for residual in residuals:
            judged = np.isfinite(residual)
            if judged.any():
                limit = max(self.threshold, self.times_median * float(np.median(residual[judged])))
                moving &= ~judged | (residual > limit)
                judged_by_any |= judged
        return opencv_flow.cleaned(moving & judged_by_any, int(_SMALLEST_PART * size[0] * size[1]))


def _sampson_distance(matrix: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance [N] of pairs of points [N, 2] from ``b^T F a = 0``, to first order, in pixels."""
    one = np.ones((len(a), 1))
    a, b = np.concatenate([a, one], axis=1), np.concatenate([b, one], axis=1)
    in_b, in_a = a @ matrix.T, b @ matrix
    slope = (in_b[:, :2] ** 2).sum(1) + (in_a[:, :2] ** 2).sum(1)
    return np.abs((b * in_b).sum(1)) / np.sqrt(np.maximum(slope, 1e-20))


def _transfer_distance(matrix: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance [N] of points ``b`` [N, 2] from where a homography puts ``a``, in pixels."""
    moved = np.concatenate([a, np.ones((len(a), 1))], axis=1) @ matrix.T
    depth = np.where(np.abs(moved[:, 2:]) < 1e-9, 1e-9, moved[:, 2:])
    return np.linalg.norm(moved[:, :2] / depth - b, axis=1)
