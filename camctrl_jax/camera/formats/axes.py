"""Camera axes as three letters, and reading a file whose convention is not the one of its format."""

from __future__ import annotations

import dataclasses

import numpy as np

from camctrl_jax.camera.formats.posefile import Convention, Format, PoseFile, Source, inverted
from camctrl_jax.errors import InvalidValue

_DIRECTIONS = {  # in OpenCV's axes
    "R": ("right", (1.0, 0.0, 0.0)),
    "L": ("left", (-1.0, 0.0, 0.0)),
    "D": ("down", (0.0, 1.0, 0.0)),
    "U": ("up", (0.0, -1.0, 0.0)),
    "F": ("forward", (0.0, 0.0, 1.0)),
    "B": ("back", (0.0, 0.0, -1.0)),
}
_EXAMPLES = (
    "RDF (OpenCV), RUB (OpenGL, Blender), FLU (ROS), FRD (NED), LUF (PyTorch3D), RUF (Unity), FRU (Unreal)"
)


def axes_of_file_from_opencv(code: str) -> np.ndarray:
    """The 4x4 matrix that takes coordinates in OpenCV's camera axes to those in the named axes.

    Args:
        code: where x, y and z of the camera point, as three letters out of Right/Left, Up/Down,
            Forward/Back; capitals or not. The matrix of left-handed axes has determinant -1.

    Raises:
        InvalidValue: when it is not one letter of each pair.
    """
    letters = code.strip().upper()
    rows = [_DIRECTIONS[letter][1] for letter in letters if letter in _DIRECTIONS]
    if len(letters) != 3 or len(rows) != 3 or abs(np.linalg.det(np.array(rows))) != 1.0:
        raise InvalidValue(
            f"camera axes {code!r}: expected where x, y and z point, as three letters, one of Right/Left, "
            f"one of Up/Down, one of Forward/Back; for example {_EXAMPLES}"
        )
    matrix = np.eye(4)
    matrix[:3, :3] = rows
    return matrix


def check_convention(convention: Convention, pose_format: Format) -> None:
    """Refuse what cannot be meant for files of this format.

    Raises:
        InvalidValue: for axes that are none, an unknown order of quaternions, or one where there are none.
    """
    if convention.axes:
        axes_of_file_from_opencv(convention.axes)
    if convention.quaternions not in ("", "xyzw", "wxyz"):
        raise InvalidValue(f"order of quaternions {convention.quaternions!r}: expected xyzw or wxyz")
    if convention.quaternions and not pose_format.quaternions:
        raise InvalidValue(
            f"order of quaternions {convention.quaternions!r}: files of the format {pose_format.name} hold "
            "no quaternions; leave it out, or name the format"
        )


def in_opencv_axes(pose_file: PoseFile, pose_format: Format, source: Source) -> PoseFile:
    """What a format's reader returned, inverted where the user says so and in OpenCV's camera axes."""
    convention = source.convention
    cameras = pose_file.cameras
    if not len(cameras):
        return pose_file
    poses = cameras.world_from_camera
    if convention.inverse:
        poses = inverted(source, poses, pose_file.locations)
    file_from_opencv = axes_of_file_from_opencv(convention.axes or pose_format.axes)
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN and infinite poses, which validation reports
        poses = poses @ file_from_opencv
        if pose_format.world_in_axes:
            poses = file_from_opencv.T @ poses
    return dataclasses.replace(pose_file, cameras=dataclasses.replace(cameras, world_from_camera=poses))


def departures(convention: Convention) -> str:
    """In words, where a file was read otherwise than its format says; "" where it was not."""
    parts = []
    if convention.inverse:
        parts.append("inverse matrices")
    if convention.axes:
        letters = convention.axes.strip().upper()
        names = (_DIRECTIONS[letter][0] for letter in letters)
        parts.append("camera axes " + ", ".join(f"{axis} {name}" for axis, name in zip("xyz", names)))
    if convention.quaternions:
        parts.append("quaternions " + " ".join(convention.quaternions))
    return "; ".join(parts)
