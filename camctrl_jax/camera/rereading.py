"""What a file that was read would give if it were read otherwise.

A path is taken back to the matrices that its file holds, and read again from there: no file is opened.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.axes import axes_of_file_from_opencv
from camctrl_jax.camera.formats.posefile import Convention, Format


def reread(cameras: Cameras, pose_format: Format, read: Convention, other: Convention) -> Cameras:
    """The cameras that the same file gives in another convention, but for the choice of a world.

    Args:
        cameras: as they were read.
        pose_format: of the file.
        read: the convention in which they were read.
        other: the convention in question.
    """
    stored = _stored(cameras.world_from_camera, pose_format, read)
    if _order(pose_format, other) != _order(pose_format, read):
        stored = _reordered(stored, pose_format, read)
    file_from_opencv = axes_of_file_from_opencv(other.axes or pose_format.axes)
    poses = (np.linalg.inv(stored) if other.inverse else stored) @ file_from_opencv
    if pose_format.world_in_axes:
        poses = file_from_opencv.T @ poses
    elif np.linalg.det(file_from_opencv) < 0:
        poses = _MIRROR @ poses
    return dataclasses.replace(cameras, world_from_camera=poses)


_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def first_rotation(cameras: Cameras, pose_format: Format, read: Convention) -> float:
    """How far the first matrix of the file is from the identity, in degrees."""
    stored = _stored(cameras.world_from_camera[:1], pose_format, read)
    return float(rotations.angle_degrees(stored[0, :3, :3]))


def _stored(poses: np.ndarray, pose_format: Format, read: Convention) -> np.ndarray:
    """The file's matrices [T, 4, 4] in the direction of :attr:`Format.read`: camera-to-world by its word."""
    file_from_opencv = axes_of_file_from_opencv(read.axes or pose_format.axes)
    stored = poses @ file_from_opencv.T
    if pose_format.world_in_axes:
        stored = file_from_opencv @ stored
    elif np.linalg.det(file_from_opencv) < 0:
        stored = _MIRROR @ stored  # left-handed worlds are turned over when they are read
    return np.linalg.inv(stored) if read.inverse else stored


def _order(pose_format: Format, convention: Convention) -> str:
    return convention.quaternions or pose_format.quaternions


def _reordered(stored: np.ndarray, pose_format: Format, read: Convention) -> np.ndarray:
    """The matrices of a file whose quaternions are in the other order than was read."""
    inverse = pose_format.stores == "w2c"
    matrices = np.linalg.inv(stored) if inverse else stored.copy()
    quaternions = rotations.to_quaternions(matrices[:, :3, :3])  # scalar last
    # Their columns in the file, read in the other order; all four may change sign together.
    columns = [3, 0, 1, 2] if _order(pose_format, read) == "wxyz" else [1, 2, 3, 0]
    quaternions = quaternions[:, columns]
    matrices[:, :3, :3] = rotations.from_quaternions(quaternions)
    return np.linalg.inv(matrices) if inverse else matrices
