"""MotionCtrl JSON: a list with 12 numbers per frame, the rows of the 3x4 world-to-camera matrix, OpenCV axes.

No intrinsics and no times. Frame 0 need not be the identity: several published presets start 0.2 units off.
"""

from __future__ import annotations

import json
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
    inverted,
    poses_from_3x4,
)
from camctrl_jax.files.atomic import write_text


def _matches(source: Source) -> bool:
    document = source.json
    if not isinstance(document, list) or not document or not isinstance(document[0], list):
        return False
    return not any(isinstance(value, list) for value in document[0])  # nor a list of matrices


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    locations = [f"frame {index}" for index in range(len(source.json))]
    rows = [
        source.array(where, row, (12,), "12 numbers, the 3x4 world-to-camera matrix row by row")
        for where, row in zip(locations, source.json)
    ]
    poses = inverted(source, poses_from_3x4(np.stack(rows)), locations)
    return PoseFile(Cameras(poses, default_intrinsics(len(poses))), locations, NO_INTRINSICS, image_size)


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    rows = cameras.camera_from_world[:, :3].reshape(-1, 12) + 0.0
    write_text(path, json.dumps(rows.tolist(), indent=1) + "\n")


FORMAT = Format(
    "motionctrl",
    "MotionCtrl JSON",
    "world-to-camera 3x4 rows, OpenCV axes; no intrinsics, no times",
    frozenset(),
    _matches,
    _read,
    _write,
    stores="w2c",
)
