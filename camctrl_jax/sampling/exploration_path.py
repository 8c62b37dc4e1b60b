"""Paths of an exploration's clips: read from words, files or poses, checked, and joined in one frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras, compose
from camctrl_jax.camera.playing import played_path
from camctrl_jax.errors import InvalidValue

MOST_STEP = 5.0
"""Metres from one frame to the next; more is a jump: 216 km/h at twelve frames a second."""
MOST_TURN = 90.0
"""Degrees from one frame to the next."""
_SAME_LENS = 1e-3  # of the picture

PathOrWords = Cameras | str | Path
"""A camera path, or what names one: a pose file, a preset or a sentence."""


def path_of_clip(
    path: PathOrWords,
    poses: int,
    fps: float,
    lens: np.ndarray,
    *,
    goes_on: bool,
) -> Cameras:
    """The path of a clip in metres from its first camera, which is the last one so far if it goes on.

    Args:
        path: cameras in any world frame, as many as ``poses``, whose first is where the clip begins;
            or a pose file, preset or sentence, spread over them. A file gives poses and not its lens.
            Without a unit, they are metres.
        poses: of the path; a clip that goes on has one more than frames.
        fps: frames per second, of spoken speeds.
        lens: intrinsics f [4] that it begins with.
        goes_on: whether cameras must have that lens.

    Raises:
        UserError: no path, a pose that is none, another number of poses, a jump, another lens.
    """
    if isinstance(path, Cameras):
        name, cameras = "The path", path
        _check_count(cameras, poses, goes_on)
    else:
        name = f"The path {str(path)!r}"
        played = played_path(path, poses, fps, intrinsics=lens)
        cameras = played.cameras
        if played.source is not None:
            cameras = cameras.with_intrinsics(lens)
    cameras.validate(name)
    _check_steps(cameras, name)
    wide = float(np.abs(cameras.intrinsics[0] - lens).max())
    if goes_on and wide > _SAME_LENS:
        raise InvalidValue(
            f"{name} begins with the intrinsics {np.round(cameras.intrinsics[0], 4).tolist()}, and the last "
            f"camera so far has {np.round(lens, 4).tolist()}: a lens does not jump. Give it that lens "
            "(path.with_intrinsics(exploration.cameras().intrinsics[-1]))."
        )
    # Files round, and clip after clip is multiplied onto the last camera: without this the error would grow
    # until the cameras are none.
    return replace(cameras.scaled(1.0, metric=True).orthonormalised().relative_to(0), times=None)


def gone_on(last: Cameras, path: Cameras) -> Cameras:
    """The new cameras of a path of N + 1 poses that begins at the ``last`` one: N, in the frame of that."""
    return compose(last, path)[1:]


def joined(*paths: Cameras) -> Cameras:
    """Paths in one frame, one after the other."""
    return Cameras(
        np.concatenate([path.world_from_camera for path in paths]),
        np.concatenate([path.intrinsics for path in paths]),
        metric=True,
    )


def _check_count(cameras: Cameras, poses: int, goes_on: bool) -> None:
    if len(cameras) == poses:
        return
    why = (
        "the camera where the clip begins, which is the last one so far, and one for each of its "
        f"{poses - 1} frames"
        if goes_on
        else "one for each frame of the clip"
    )
    raise InvalidValue(
        f"The path has {len(cameras)} poses, expected {poses}: {why}. camctrl_jax.camera.resample(path, "
        f"{poses}) spreads it over them."
    )


def _check_steps(cameras: Cameras, name: str) -> None:
    """That the camera moves and does not jump."""
    steps = np.linalg.norm(np.diff(cameras.positions, axis=0), axis=1)
    turns = cameras.rotation_steps
    for what, values, most, unit in (("moves", steps, MOST_STEP, "m"), ("turns", turns, MOST_TURN, "deg")):
        if len(values) and values.max() > most:
            frame = int(values.argmax())
            raise InvalidValue(
                f"{name} {what} by {values[frame]:.4g} {unit} from frame {frame} to frame {frame + 1}, more "
                f"than {most:g}: a cut, a bad pose, or another unit. Lengths are metres; path.scaled(0.01, "
                "metric=True) makes them of centimetres."
            )
