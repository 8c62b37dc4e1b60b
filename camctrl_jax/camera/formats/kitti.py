"""KITTI odometry poses: 12 numbers a line, the 3x4 camera-to-world matrix row by row, OpenCV axes.

No intrinsics and no times (KITTI has them in ``calib.txt`` and ``times.txt``). Lengths are metres by the
benchmark's definition, but monocular methods write their arbitrary scale in the same form: the reader
leaves ``metric`` false. Lines of 16 numbers, the 4x4 matrix row by row, are read alike and noted: Replica's
``traj.txt`` and many others are camera-to-world in this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import (
    NO_INTRINSICS,
    Format,
    PoseFile,
    Source,
    default_intrinsics,
    numbers,
    poses_from_3x4,
)
from camctrl_jax.files.atomic import write_text


def _matches(source: Source) -> bool:
    return source.columns in (12, 16) and source.json is None


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    count = source.columns
    meaning = f"{count} numbers, the {'3x4' if count == 12 else '4x4'} camera-to-world matrix row by row"
    if not source.rows:
        source.fail("", f"holds no poses; expected one line per frame: {meaning}")
    values = np.array([source.numbers(line, words, count, meaning) for line, words in source.rows])
    poses = poses_from_3x4(values) if count == 12 else values.reshape(-1, 4, 4)
    return PoseFile(
        Cameras(poses, default_intrinsics(len(poses))),
        [f"line {line}" for line, _ in source.rows],
        NO_INTRINSICS,
        image_size,
        notes=()
        if count == 12
        else ("16 numbers a line: taken for 4x4 camera-to-world matrices, row by row, in OpenCV axes",),
    )


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    write_text(path, "\n".join(numbers(pose[:3]) for pose in cameras.world_from_camera) + "\n")


FORMAT = Format(
    "kitti",
    "KITTI odometry poses, 12 numbers a line (or 16: Replica)",
    "camera-to-world 3x4 rows, OpenCV axes; no intrinsics, no times",
    frozenset(),
    _matches,
    _read,
    _write,
    stores="c2w",
)
