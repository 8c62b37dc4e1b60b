"""Motion masks without weights: where optical flow breaks the geometry of a camera that moves among still
things.

1. Pictures are made grey and ``height`` pixels high; small ones are enlarged, at most twice.
2. For each frame, once forwards and once backwards in time, the nearest other frame is taken to which the
   median flow is ``flow_px`` or more, at least 0.08 s (half of a shorter clip) and at most ``longest`` away:
   what moves little from frame to frame moves enough in half a second.
3. DIS flow there and back. Not judged are pixels whose way there and back does not close (they are hidden, or
   the flow is wrong), and those in a neighbourhood without texture (where flow is a guess).
4. A fundamental matrix (MAGSAC) is fitted to a grid of judged pixels, and a homography. Where the homography
   explains nearly as many (the camera turns, stands still, or sees a plane) it is used, since a fundamental
   matrix is then arbitrary; where neither can be fitted nothing is judged.
5. A pixel's residual is its Sampson distance to the epipolar line, or its distance to where the homography
   puts it. It is too large beyond ``threshold`` pixels and beyond the median and ``times_noise`` robust
   standard deviations of all residuals: the flow's own noise.

A pixel moves if one of the two other frames says so, where at least one judges it. Single pixels and parts
below 0.1 % of the picture are dropped.

What moves along its epipolar line (in the direction of the camera, above all) cannot be seen this way, and if
a moving thing fills the picture it is taken for the world. On this package's own worlds, whose textures are
soft and whose things move by a pixel or less a frame, precision is about 0.5 and recall 0.3
(docs/results/estimators.md). A working default, no substitute for a learned segmenter.
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
_FIT = 1.0  # pixels: what both are fitted to
_SMALLEST_PART = 1e-3
_BASELINES = (0.08, 0.16, 0.25, 0.35, 0.5, 0.75, 1.0)  # seconds
_ENLARGED = 2.0

Flows = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class EpipolarMasks:
    """Masks from DIS flow and epipolar residuals; the module says how, and what it misses.

    Attributes:
        flow: the optical flow.
        height: pictures are made so many pixels high, small ones at most twice as high as they are.
        flow_px: median flow that makes another frame far enough away, pixels.
        longest: seconds, how far away it may be.
        threshold: pixels, the smallest residual of what moves.
        times_noise: robust standard deviations of the residuals that it must exceed.
        texture: mean gradient of a neighbourhood that is judged, grey levels a pixel.
    """

    flow: DisFlow = field(default_factory=DisFlow)
    height: int = 240
    flow_px: float = 2.0
    longest: float = 1.0
    threshold: float = 0.5
    times_noise: float = 3.0
    texture: float = 1.0

    def fingerprint(self) -> Fingerprint:
        settings = tuple((k, v) for k, v in vars(self).items() if k != "flow")
        flow = self.flow.fingerprint()
        return Fingerprint("epipolar masks", f"3, {flow.version}", (*settings, ("flow", flow.digest)))

    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        """See :class:`~camctrl_jax.estimators.protocols.MotionSegmenter`; one frame alone shows no motion."""
        frames = checked_frames(frames)
        if not 0 < fps < float("inf"):
            raise InvalidValue(f"fps is {fps}; expected frames per second, more than 0.")
        height, width = frames.shape[1:3]
        small = self._working_size(height, width)
        greys = [opencv_flow.resized(opencv_flow.grey(frame), *small) for frame in frames]
        steps = sorted({max(1, round(s * fps)) for s in _BASELINES if s <= self.longest}) or [1]
        # Of a clip of a few hundredths of a second every frame has another one half of the clip away.
        steps = sorted({min(steps[0], max(1, (len(frames) - 1) // 2)), *steps})
        flows: Flows = {}
        masks = []
        for t, grey in enumerate(greys):
            flows = {
                pair: flow for pair, flow in flows.items() if max(pair) >= t
            }  # no other frame needs them
            textured = opencv_flow.texture(grey) >= self.texture
            residuals = []
            for direction in (-1, 1):
                other = self._far_enough(greys, flows, t, [direction * step for step in steps])
                if other is not None:
                    there, back = (self._flow(greys, flows, *pair) for pair in ((t, other), (other, t)))
                    residuals.append(self._residual(there, back, textured))
            masks.append(opencv_flow.enlarged_mask(self._moving(residuals, small), height, width))
        return MotionMasks(np.stack(masks))

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        if min(height, width) < 32:
            raise InvalidValue(
                f"motion masks need pictures of 32 pixels a side or more, got {height} x {width}."
            )
        scale = min(_ENLARGED, self.height / height)
        return max(32, round(height * scale)), max(32, round(width * scale))

    def _flow(self, greys: list[np.ndarray], flows: Flows, a: int, b: int) -> np.ndarray:
        """Flow from frame ``a`` to ``b``, kept in ``flows``."""
        if (a, b) not in flows:
            flows[a, b] = self.flow.of_greys(greys[a], greys[b])
        return flows[a, b]

    def _far_enough(self, greys: list[np.ndarray], flows: Flows, t: int, steps: list[int]) -> int | None:
        """The nearest of the frames ``steps`` away with enough flow, else the farthest; None if none is."""
        found = None
        for other in (t + step for step in steps):
            if not 0 <= other < len(greys):
                break
            found, flow = other, self._flow(greys, flows, t, other)
            if np.median(np.hypot(flow[..., 0], flow[..., 1])) >= self.flow_px:
                break
        return found

    def _residual(self, there: np.ndarray, back: np.ndarray, textured: np.ndarray) -> np.ndarray:
        """Distance f32 [h, w] in pixels from what the camera's motion explains; NaN where it is not
        judged."""
        h, w = there.shape[:2]
        ys, xs = np.mgrid[:h, :w].astype(np.float32)
        ends = np.stack([xs, ys], axis=-1) + there
        returned = there + opencv_flow.sampled(back, ends)
        lengths = (there**2).sum(-1) + (back**2).sum(-1)
        judged = textured & ((returned**2).sum(-1) < 0.01 * lengths + 0.5)
        judged &= (
            (ends[..., 0] >= 0) & (ends[..., 0] <= w - 1) & (ends[..., 1] >= 0) & (ends[..., 1] <= h - 1)
        )
        a = np.stack([xs, ys], axis=-1)[judged].astype(np.float64)
        b = ends[judged].astype(np.float64)
        residual = np.full((h, w), np.nan, np.float32)
        stride = max(1, len(a) // _GRID)
        epipolar = opencv_flow.fundamental(a[::stride], b[::stride], _FIT)
        plane = opencv_flow.homography(a[::stride], b[::stride], _FIT)
        if plane is not None and (epipolar is None or plane[1].sum() >= _LIKE_F * epipolar[1].sum()):
            residual[judged] = _transfer_distance(plane[0], a, b)
        elif epipolar is not None:
            residual[judged] = _sampson_distance(epipolar[0], a, b)
        return residual

    def _moving(self, residuals: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Where at least half of the other frames that judge a pixel find that it moves."""
        moving, judged_by = np.zeros(size, int), np.zeros(size, int)
        for residual in residuals:
            judged = np.isfinite(residual)
            if judged.any():
                middle = np.median(residual[judged])
                noise = 1.4826 * np.median(np.abs(residual[judged] - middle))  # as of a normal distribution
                limit = max(self.threshold, float(middle + self.times_noise * noise))
                moving += judged & (residual > limit)
                judged_by += judged
        found = (judged_by > 0) & (2 * moving >= judged_by) & (moving > 0)
        return opencv_flow.cleaned(found, int(_SMALLEST_PART * size[0] * size[1]))


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
