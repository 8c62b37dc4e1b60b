"""Open3D trajectories: the Redwood ``.log`` and the ``PinholeCameraTrajectory`` JSON.

``.log``: per frame a line of three integers (frame, frame, frames or next frame), then a 4x4
camera-to-world matrix, OpenCV axes; no intrinsics, no times.

JSON: per frame ``extrinsic``, the world-to-camera 4x4 **column by column**, OpenCV axes, and ``intrinsic``
with a column-by-column 3x3 matrix in pixels. Open3D puts pixel centres at integers ((W - 1) / 2 is the
middle), so half a pixel is added to cx and cy on reading and taken off on writing.
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
    numbers,
    required_size,
)
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels, intrinsics_in_pixels
from camctrl_jax.files.atomic import write_text

_TRAJECTORY = "PinholeCameraTrajectory"


def _log_matches(source: Source) -> bool:
    rows = source.rows
    return source.json is None and len(rows) > 1 and len(rows[0][1]) == 3 and len(rows[1][1]) == 4


def _log_read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    rows = source.rows
    locations, poses = [], []
    for start in range(0, len(rows), 5):
        block = rows[start : start + 5]
        line = block[0][0]
        source.numbers(line, block[0][1], 3, "three integers before each 4x4 matrix")
        if len(block) < 5:
            source.fail(
                f"line {line}",
                f"the matrix after it has {len(block) - 1} rows, expected 4; is the file cut short?",
            )
        locations.append(f"line {line}")
        poses.append(
            [source.numbers(number, words, 4, "one row of a 4x4 matrix") for number, words in block[1:]]
        )
    if not poses:
        source.fail("", "holds no poses")
    return PoseFile(
        Cameras(np.array(poses), default_intrinsics(len(poses))), locations, NO_INTRINSICS, image_size
    )


def _log_write(
    cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]
) -> None:
    lines = []
    for index, pose in enumerate(cameras.world_from_camera):
        lines += [f"{index} {index} {index + 1}", *(numbers(row) for row in pose)]
    write_text(path, "\n".join(lines) + "\n")


def _json_matches(source: Source) -> bool:
    document = source.json
    return isinstance(document, dict) and (
        str(document.get("class_name", "")).startswith("PinholeCamera") or "intrinsic_matrix" in document
    )


def _json_read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    document = source.json
    if not isinstance(document, dict) or document.get("class_name") != _TRAJECTORY:
        source.fail(
            "", f"holds no camera path; expected an Open3D {_TRAJECTORY} with poses, not intrinsics alone"
        )
    parameters = document.get("parameters")
    if not isinstance(parameters, list) or not parameters:
        source.fail("parameters", "is missing or empty; expected one entry per frame")
    extrinsics, pixels, sizes, locations = [], [], [], []
    for index, entry in enumerate(parameters):
        where = f"frame {index}"
        locations.append(where)
        entry = source.object(where, entry)
        intrinsic = source.object(f"{where}, intrinsic", entry.get("intrinsic"))
        extrinsic = source.array(where, entry.get("extrinsic"), (16,), "an extrinsic of 16 numbers")
        extrinsics.append(extrinsic.reshape(4, 4).T)
        matrix = source.array(
            where, intrinsic.get("intrinsic_matrix"), (9,), "an intrinsic_matrix of 9 numbers"
        )
        fx, fy, cx, cy = matrix[[0, 4, 6, 7]]
        pixels.append((fx, fy, cx + 0.5, cy + 0.5))
        sizes.append(source.size(f"{where}, intrinsic", intrinsic, "height", "width"))
    intrinsics = np.stack([intrinsics_from_pixels(row, *size) for row, size in zip(pixels, sizes)])
    return PoseFile(
        Cameras(inverted(source, np.stack(extrinsics), locations), intrinsics),
        locations,
        image_size=sizes[0] if len(set(sizes)) == 1 else image_size,
    )


def _json_write(
    cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]
) -> None:
    height, width = required_size(image_size, "Open3D's camera trajectory")
    parameters = []
    rows = intrinsics_in_pixels(cameras.intrinsics, height, width)
    for (fx, fy, cx, cy), extrinsic in zip(rows.tolist(), cameras.camera_from_world):
        parameters.append(
            {
                "class_name": "PinholeCameraParameters",
                "extrinsic": (extrinsic.T + 0.0).ravel().tolist(),
                "intrinsic": {
                    "width": width,
                    "height": height,
                    "intrinsic_matrix": [fx, 0.0, 0.0, 0.0, fy, 0.0, cx - 0.5, cy - 0.5, 1.0],
                },
                "version_major": 1,
                "version_minor": 0,
            }
        )
    document = {"class_name": _TRAJECTORY, "parameters": parameters, "version_major": 1, "version_minor": 0}
    write_text(path, json.dumps(document, indent=1) + "\n")


LOG = Format(
    "open3d_log",
    "Open3D and Redwood trajectory .log",
    "camera-to-world 4x4, OpenCV axes; no intrinsics, no times",
    frozenset(),
    _log_matches,
    _log_read,
    _log_write,
    stores="c2w",
)
JSON = Format(
    "open3d_json",
    "Open3D PinholeCameraTrajectory JSON",
    "world-to-camera 4x4 column by column, OpenCV axes; intrinsics in pixels, pixel centres at integers; "
    "no times",
    frozenset({"intrinsics"}),
    _json_matches,
    _json_read,
    _json_write,
    stores="w2c",
)
