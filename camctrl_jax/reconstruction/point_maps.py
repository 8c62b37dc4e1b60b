"""Depth or point maps of a user's estimator, brought to the scale and place of known cameras.

Estimators of the class of VGGT, FLARE and DUSt3R give a point or a depth for each pixel, with a confidence,
in a world of their own: their own scale, and often their own cameras. A depth map needs one number, its
scale; points of a world of their own need seven, a similarity. Both are found from the cameras that are
known, so that what comes out is in their world.
"""

from __future__ import annotations

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.protocols import EstimatorFailed, PointMaps


def depth_of_point_maps(maps: PointMaps, cameras: Cameras, size: tuple[int, int]) -> np.ndarray:
    """z-depth f32 [T, H, W] in the known cameras, in their unit; NaN where a map has nothing.

    Args:
        maps: what the estimator gave.
        cameras: the known ones, of the same frames.
        size: (height, width) of the frames.

    Raises:
        EstimatorFailed: ``bad_result``, shapes that do not fit, or maps of which nothing is finite.
        InvalidValue: a scale cannot be told (the camera stands still), and the maps are not in metres.
    """
    count = len(cameras)
    _check(maps, count, size)
    if maps.depth is not None:
        depth = np.where(np.isfinite(maps.depth) & (maps.depth > 0), maps.depth, np.nan)
        scale = _scale(maps, cameras)
        return (depth * scale).astype(np.float32)
    points = maps.points.astype(np.float64)
    if maps.cameras is not None:
        scale, rotation, shift = similarity(maps.cameras, cameras)
        points = scale * points @ rotation.T + shift
    inverse = cameras.camera_from_world
    depth = np.einsum("tj,thwj->thw", inverse[:, 2, :3], points) + inverse[:, None, None, 2, 3]
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    if not np.isfinite(depth).any():
        raise EstimatorFailed("bad_result", "no point of the point maps lies before its camera.")
    return depth.astype(np.float32)


def _scale(maps: PointMaps, cameras: Cameras) -> float:
    if maps.cameras is None:
        if maps.metric and cameras.metric:
            return 1.0
        raise InvalidValue(
            "depth maps came without cameras and not in metres: their scale is unknown. Let the estimator "
            "give its own cameras too, or mark its depth as metric."
        )
    return similarity(maps.cameras, cameras)[0]


def similarity(from_cameras: Cameras, to_cameras: Cameras) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] and shift [3] that take the world of one path to that of another.

    The rotation is the mean of what the cameras' own rotations say, which a straight path tells as well as
    any other; scale and shift are then those of least squares of the centres (Umeyama 1991 with a known
    rotation).

    Raises:
        InvalidValue: paths of different lengths, or one whose camera does not leave its place.
    """
    if len(from_cameras) != len(to_cameras):
        raise InvalidValue(
            f"the estimator gave {len(from_cameras)} cameras for {len(to_cameras)} frames; each needs one."
        )
    between = to_cameras.rotations @ np.swapaxes(from_cameras.rotations, 1, 2)
    rotation = rotations.nearest(between.mean(axis=0))
    a, b = from_cameras.positions, to_cameras.positions
    a_middle, b_middle = a.mean(axis=0), b.mean(axis=0)
    turned, wanted = (a - a_middle) @ rotation.T, b - b_middle
    spread = float((turned**2).sum())
    scale = float((turned * wanted).sum()) / spread if spread > 0 else 0.0
    if not (np.isfinite(scale) and scale > 0):
        raise InvalidValue(
            "the estimator's cameras do not move as the known ones do (scale "
            f"{scale:.3g}): the scale of its depth cannot be told."
        )
    return scale, rotation, b_middle - scale * rotation @ a_middle


def _check(maps: PointMaps, count: int, size: tuple[int, int]) -> None:
    wanted = (count, *size)
    given = {"depth": (maps.depth, wanted), "points": (maps.points, (*wanted, 3))}
    given["confidence"] = (maps.confidence, wanted)
    for name, (array, shape) in given.items():
        if array is not None and np.shape(array) != shape:
            raise EstimatorFailed(
                "bad_result", f"point maps: {name} is {list(np.shape(array))}, expected {list(shape)}."
            )
    if (maps.depth is None) == (maps.points is None):
        raise EstimatorFailed("bad_result", "point maps hold either depth or points.")


def believed_point_maps(
    depth: np.ndarray, confidence: np.ndarray | None, masks: np.ndarray | None, *, keep: float = 0.7
) -> np.ndarray:
    """Depth without what is masked or among the least sure: the share ``keep`` of all known pixels stays."""
    known = np.isfinite(depth) & (True if masks is None else ~masks)
    if confidence is not None:
        known &= np.isfinite(confidence)
    if confidence is not None and known.any() and keep < 1.0:
        known &= confidence >= np.quantile(confidence[known], 1.0 - keep)
    return np.where(known, depth, np.nan).astype(np.float32)
