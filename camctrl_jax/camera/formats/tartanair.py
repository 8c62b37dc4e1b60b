"""TartanAir trajectories: ``tx ty tz qx qy qz qw`` per line, camera-to-world, metres.

No times, no intrinsics. Axes are NED for camera and world alike: x forward, y right, z down. Read: both are
renamed to OpenCV's (x right, y down, z forward), as the data set's own tools do, which is a rotation of
either side. Write: the reverse, so a round trip restores every number. DROID-SLAM and others write
estimates of arbitrary scale in this form: the reader leaves ``metric`` false.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.axes import axes_of_file_from_opencv
from camctrl_jax.camera.formats.posefile import (
    NO_INTRINSICS,
    Format,
    PoseFile,
    Source,
    default_intrinsics,
    numbers,
)
from camctrl_jax.camera.formats.tum import poses_from_quaternions
from camctrl_jax.files.atomic import write_text

_MEANING = "tx ty tz qx qy qz qw"


def _matches(source: Source) -> bool:
    return source.columns == 7 and source.json is None


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    if not source.rows:
        source.fail("", f"holds no poses; expected one line per frame: {_MEANING}")
    values = np.array([source.numbers(line, words, 7, _MEANING) for line, words in source.rows])  # [T, 7]
    locations = [f"line {line}" for line, _ in source.rows]
    poses = poses_from_quaternions(source, values[:, :3], values[:, 3:], locations, FORMAT.quaternions)
    return PoseFile(Cameras(poses, default_intrinsics(len(poses))), locations, NO_INTRINSICS, image_size)


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    ned_from_opencv = axes_of_file_from_opencv(FORMAT.axes)
    ned = ned_from_opencv @ cameras.world_from_camera @ ned_from_opencv.T
    quaternions = rotations.to_quaternions(ned[:, :3, :3])
    lines = [f"{numbers(pose[:3, 3])} {numbers(quaternion)}" for pose, quaternion in zip(ned, quaternions)]
    write_text(path, "\n".join(lines) + "\n")


FORMAT = Format(
    "tartanair",
    "TartanAir trajectory: also DROID-SLAM estimates",
    "camera-to-world translation and quaternion x y z w, NED axes (x forward, y right, z down) on both "
    "sides; no intrinsics, no times",
    frozenset(),
    _matches,
    _read,
    _write,
    stores="c2w",
    axes="FRD",
    world_in_axes=True,
    quaternions="xyzw",
)
