"""What speaks against a model of structure from motion.

That all frames are registered does not make cameras right: on scenes with exact truth, 16 of 16 frames were
registered six times with errors of 10 to 25 % of the path. These checks are stricter; they cannot prove a
model right either. A clip passes geometric consistency, strictly, if it has a model and no doubts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.estimators.protocols import SfmResult, SfmStatus


@dataclass(frozen=True)
class Limits:
    """Where doubts begin; to be calibrated.

    Attributes:
        registered: least share of registered frames.
        gap: most frames in a row without a pose, between or before registered ones.
        second_model: largest share of frames in a second model.
        points, track, observations: least points, median frames of a point, observations in every frame.
        reprojection: largest mean reprojection error, picture diagonals; None, the default, does not
            look at it: on worlds, wrong models fit their points as well as right ones
            (docs/results/estimators.md).
        fov_deg: horizontal field of view.
        distortion: largest |k1|.
        triangulation_deg: least median angle between the rays of a point.
        flat: least :func:`flatness`, where the camera goes towards the points or away from them. Where it
            passes them by, the second explanation would put some behind it, and is none.
        jump: largest step over the median step, if it is also ``jump_share`` of the path's extent.
    """

    registered: float = 0.9
    gap: int = 2
    second_model: float = 0.2
    points: int = 100
    track: int = 3
    observations: int = 30
    reprojection: float | None = None
    fov_deg: tuple[float, float] = (20.0, 120.0)
    distortion: float = 0.3
    triangulation_deg: float = 1.5
    flat: float = 0.11
    jump: float = 5.0
    jump_share: float = 0.02


DEFAULT = Limits()
_PLANE_ROUNDS = 20
_TOWARDS = 0.9  # share of the points on one side of a camera that goes towards them, or away from them

DOUBTS = (
    *("no_model", "unregistered", "gap", "end_missing", "fragments", "few_points", "short_tracks"),
    *("few_observations", "small_angles", "flat", "field_of_view", "distortion", "jump"),
)
"""The words of :func:`doubts` with the default limits; ``reprojection`` is one more where a limit is set."""


def doubts(result: SfmResult, image_size: tuple[int, int], limits: Limits = DEFAULT) -> tuple[str, ...]:
    """Short fixed words, one for each check that fails; empty of a model without doubts.

    ``no_model`` alone, or of the others of :data:`DOUBTS`. Poses without points (imported ones, or of an
    estimator that gives none) are judged by themselves alone.

    Args:
        image_size: (height, width) of the frames.
    """
    if result.status is SfmStatus.FAILED:
        return ("no_model",)
    found, frames = [], result.registered_frames
    if result.registered_share < limits.registered:
        found.append("unregistered")
    missing = np.diff(np.concatenate([[-1], frames, [len(result)]])) - 1
    if (missing > limits.gap).any():
        found.append("gap")
    if missing[0] or missing[-1]:
        found.append("end_missing")
    if len(result.model_sizes) > 1 and result.model_sizes[1] >= limits.second_model * len(result):
        found.append("fragments")
    if len(result.points):
        found += _of_points(result, image_size, limits)
    lens = result.intrinsics[frames]
    fov = np.degrees(2.0 * np.arctan(0.5 / lens[:, 0]))
    if ((fov < limits.fov_deg[0]) | (fov > limits.fov_deg[1])).any():
        found.append("field_of_view")
    if (np.abs(result.distortion[frames, 0]) > limits.distortion).any():
        found.append("distortion")
    if _jumps(result, limits):
        found.append("jump")
    return tuple(found)


def _of_points(result: SfmResult, image_size: tuple[int, int], limits: Limits) -> list[str]:
    found = []
    if len(result.points) < limits.points:
        found.append("few_points")
    if np.median(result.track_lengths) < limits.track:
        found.append("short_tracks")
    if (result.observations_per_frame[result.registered] < limits.observations).any():
        found.append("few_observations")
    largest = np.inf if limits.reprojection is None else limits.reprojection * np.hypot(*image_size)
    if result.mean_reprojection_error > largest:
        found.append("reprojection")
    if np.median(triangulation_angles(result)) < limits.triangulation_deg:
        found.append("small_angles")
    if flatness(result) < limits.flat and _one_side(result) >= _TOWARDS:
        found.append("flat")
    return found


def flatness(result: SfmResult) -> float:
    """How far the points are from lying on one plane: the 90 % quantile of their distances from it, each over
    the point's distance from the middle of the path. Infinite for fewer than four points, which tell nothing.

    Pictures of a plane taken along a straight line have a second explanation, as good as the first to first
    order: direction of travel and normal of the plane change places, and a slow turn makes up the rest
    (Longuet-Higgins 1986). A camera that moves ahead over flat ground may be found to rise before a wall,
    with small errors, all points in front of it and wide angles between their rays.
    """
    points = result.points - result.cameras().positions.mean(axis=0)
    if len(points) < 4:
        return float("inf")
    away = np.maximum(np.linalg.norm(points, axis=1), 1e-12)
    off, weights = np.zeros(len(points)), away**-2
    # Robust, since the points of one thing that stands on the plane must not tilt it: Cauchy's weights.
    for _ in range(_PLANE_ROUNDS):
        middle = np.average(points, axis=0, weights=weights)
        centred = points - middle
        normal = np.linalg.eigh((centred * weights[:, None]).T @ centred)[1][:, 0]
        off = np.abs(centred @ normal) / away
        scale = max(1.4826 * float(np.median(off)), 1e-9)
        weights = 1.0 / (1.0 + (off / scale) ** 2) / away**2
    return float(np.quantile(off, 0.9))


def _one_side(result: SfmResult) -> float:
    """Share of the points that lie before the camera as it travels, or behind it if these are more."""
    positions = result.cameras().positions
    middle = positions.mean(axis=0)
    travel = np.linalg.svd(positions - middle)[2][0]
    ahead = float(((result.points - middle) @ travel > 0).mean())
    return max(ahead, 1.0 - ahead)


def triangulation_angles(result: SfmResult) -> np.ndarray:
    """The largest angle between two of the rays that meet in each point, degrees, f64 [P]; 0 of a single ray.

    Taken from the rays of the first and the last frame that see a point: exact for a
    camera that goes one way, never more than the true one otherwise.
    """
    order = np.lexsort((result.observation_frame, result.observation_point))
    points, frames = result.observation_point[order], result.observation_frame[order]
    angles = np.zeros(len(result.points))
    if not len(points):
        return angles
    starts = np.flatnonzero(np.diff(points, prepend=-1))
    ends = np.append(starts[1:], len(points)) - 1
    rotation, shift = result.camera_from_world[:, :, :3], result.camera_from_world[:, :, 3]
    centres = -np.einsum("tji,tj->ti", rotation, shift)
    rays = [centres[frames[place]] - result.points[points[starts]] for place in (starts, ends)]
    unit = [ray / np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12) for ray in rays]
    cosine = np.clip((unit[0] * unit[1]).sum(axis=1), -1.0, 1.0)
    angles[points[starts]] = np.degrees(np.arccos(cosine))
    return angles


def _jumps(result: SfmResult, limits: Limits) -> bool:
    frames = result.registered_frames
    if len(frames) < 3:
        return False
    positions = result.cameras().positions
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1) / np.diff(frames)
    extent = np.linalg.norm(positions - positions.mean(axis=0), axis=1).max()
    return bool((steps > np.maximum(limits.jump * np.median(steps), limits.jump_share * extent)).any())
