"""New paths from given ones: resampling, key frames, joining, aiming, mirroring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.errors import InvalidValue

RAMP = 0.2
"""Share of a smoothly eased move spent speeding up, and again slowing down."""


def linear(progress: np.ndarray) -> np.ndarray:
    """Constant speed."""
    return progress


def smooth(progress: np.ndarray) -> np.ndarray:
    """Constant speed with a short ramp at both ends: position and speed are continuous."""
    top_speed = 1.0 / (1.0 - RAMP)
    start = 0.5 * progress**2 / RAMP
    end = 1.0 / top_speed - 0.5 * (1.0 - progress) ** 2 / RAMP
    middle = progress - 0.5 * RAMP
    return top_speed * np.where(progress < RAMP, start, np.where(progress > 1.0 - RAMP, end, middle))


def ease_in(progress: np.ndarray) -> np.ndarray:
    """Starts at rest and speeds up all the way."""
    return progress**2


def ease_out(progress: np.ndarray) -> np.ndarray:
    """Starts fast and comes to rest."""
    return 1.0 - (1.0 - progress) ** 2


EASINGS: MappingProxyType[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"linear": linear, "smooth": smooth, "ease_in": ease_in, "ease_out": ease_out}
)
"""Maps of progress 0..1 to progress 0..1, by the names that presets, key frames and path texts take."""


def easing_function(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The easing of that name."""
    if name not in EASINGS:
        raise InvalidValue(f"unknown easing {name!r}; known are {', '.join(EASINGS)}")
    return EASINGS[name]


def resample(cameras: Cameras, frames: int) -> Cameras:
    """The same path with another number of frames, spread evenly in time (over the index if it has no times).

    Rotations are slerped; centres follow a monotone cubic (PCHIP), never the extrinsic translation, which
    mixes rotation and position; intrinsics are interpolated linearly. The first and last pose are kept.
    """
    if frames < 1:
        raise InvalidValue(f"cannot resample to {frames} frames")
    if len(cameras) == 0:
        raise CameraError("cannot resample a path without poses")
    knots = np.arange(len(cameras), dtype=np.float64) if cameras.times is None else cameras.times
    return sample_at(cameras, np.linspace(knots[0], knots[-1], frames))


def sample_at(cameras: Cameras, at: ArrayLike) -> Cameras:
    """The path at given moments [N]: seconds if it has times, frame indices otherwise, held at both ends.

    Interpolates as :func:`resample` does. The result has times only if the path has and ``at`` increases.
    """
    at = np.atleast_1d(np.asarray(at, dtype=np.float64))
    knots = np.arange(len(cameras), dtype=np.float64) if cameras.times is None else cameras.times
    times = at if cameras.times is not None and (np.diff(at) > 0).all() else None
    if len(cameras) == 1:
        return dataclasses.replace(cameras[np.zeros(len(at), dtype=int)], times=times)
    if (np.diff(knots) <= 0).any():
        raise CameraError("cannot interpolate a path whose times do not increase; leave the times out")
    inside = np.clip(at, knots[0], knots[-1])
    intrinsics = np.stack([np.interp(inside, knots, column) for column in cameras.intrinsics.T], axis=1)
    rotation = rotations.slerp(knots, cameras.rotations, inside)
    return Cameras(
        _poses(rotation, _pchip(knots, cameras.positions, inside)), intrinsics, times, cameras.metric
    )


def interpolate_keyframes(
    keyframes: Cameras, frames: int, *, fps: float = 12.0, easing: str = "linear"
) -> Cameras:
    """A smooth path through key frames.

    Unlike :func:`resample`, rotations follow a spline without a kink in angular velocity at the key frames,
    and intrinsics follow the same monotone cubic as the centres, so that a hand-set path looks like one move.

    Args:
        keyframes: the key poses; their ``times`` set the pace, and even spacing is used without them.
        frames: number of frames of the result, which starts and ends on the outer key frames.
        fps: frame rate of the result's times.
        easing: name in :data:`EASINGS`, applied to the path as a whole.
    """
    if frames < 1:
        raise InvalidValue(f"cannot make a path of {frames} frames")
    progress = easing_function(easing)(np.linspace(0.0, 1.0, frames))
    if len(keyframes) == 1:
        return keyframes[np.zeros(frames, dtype=int)].with_fps(fps)
    knots = np.arange(len(keyframes), dtype=np.float64) if keyframes.times is None else keyframes.times
    if (np.diff(knots) <= 0).any():
        raise CameraError("the times of key frames must increase")
    at = knots[0] + progress * (knots[-1] - knots[0])
    poses = _poses(rotations.spline(knots, keyframes.rotations, at), _pchip(knots, keyframes.positions, at))
    return Cameras(poses, _pchip(knots, keyframes.intrinsics, at), np.arange(frames) / fps, keyframes.metric)


def compose(*paths: Cameras) -> Cameras:
    """Paths joined end to end: each continues from the last pose of the one before.

    The first frame of every later path coincides with that pose and is left out, so N paths of T frames give
    N (T - 1) + 1. Each path keeps its own intrinsics. Times are joined if all paths have them.
    """
    if not paths:
        raise InvalidValue("nothing to compose: give at least one path")
    if len({path.metric for path in paths}) > 1:
        raise CameraError(
            "cannot join a path in metres to one in an unknown unit; scale one first: Cameras.scaled(..., "
            "metric=True)"
        )
    poses, intrinsics = [paths[0].world_from_camera], [paths[0].intrinsics]
    times = [] if any(path.times is None for path in paths) else [paths[0].times]
    for path in paths[1:]:
        poses.append((poses[-1][-1] @ path.relative_to(0).world_from_camera)[1:])
        intrinsics.append(path.intrinsics[1:])
        if times:
            times.append(times[-1][-1] + path.times[1:] - path.times[0])
    return Cameras(
        np.concatenate(poses),
        np.concatenate(intrinsics),
        np.concatenate(times) if times else None,
        paths[0].metric,
    )


def flip_horizontal(cameras: Cameras) -> Cameras:
    """The path seen in a mirror: the cameras of a clip whose every picture is flipped left to right.

    With S = diag(-1, 1, 1, 1) the pose becomes S G S, a proper rotation again, and cx becomes 1 - cx. Flip a
    whole clip or none of it: a flag per frame tears the path apart.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, 2] = 1.0 - intrinsics[:, 2]
    return dataclasses.replace(
        cameras, world_from_camera=mirror @ cameras.world_from_camera @ mirror, intrinsics=intrinsics
    )


def look_at(cameras: Cameras, point: ArrayLike) -> Cameras:
    """The same centres, every camera turned to face ``point`` [3] in world coordinates, horizon level.

    Level means level to the first camera's vertical. A camera within a micro-unit of the point keeps its
    rotation.
    """
    return _aimed(cameras, np.asarray(point, dtype=np.float64) - cameras.positions)


def look_along_path(cameras: Cameras) -> Cameras:
    """The same centres, every camera turned to where it is going, horizon level as in :func:`look_at`."""
    if len(cameras) < 2:
        return cameras
    return _aimed(cameras, np.gradient(cameras.positions, axis=0))


def _aimed(cameras: Cameras, forward: np.ndarray) -> Cameras:
    rotation = rotations.aimed(forward, cameras.rotations[0][:, 1], cameras.rotations)
    return dataclasses.replace(cameras, world_from_camera=_poses(rotation, cameras.positions))


def _pchip(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return PchipInterpolator(knots, values, axis=0)(np.clip(at, knots[0], knots[-1]))


def _poses(rotation: np.ndarray, positions: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = rotation
    poses[:, :3, 3] = positions
    return poses
