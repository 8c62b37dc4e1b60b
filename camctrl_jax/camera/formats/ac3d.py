"""AC3D's camera JSON of a clip, before and after its metric rescaling (``*.camera_info*.json``).

``imH`` and ``imW``; ``intrinsics``, a 3x3 in pixels for every frame; ``w2c``, a 3x4 world-to-camera for
every frame, OpenCV axes (the poses go to COLMAP unchanged). The rescaled file adds ``metric_scale``, by
which its translations have been multiplied already, and ``scale_var``: then lengths are metres. No times.
Established from the script and the demo file in the project's ``data/metric_scale_camera``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import (
    Format,
    PoseFile,
    Source,
    inverted,
    poses_from_3x4,
    required_size,
)
from camctrl_jax.camera.intrinsics import intrinsics_in_pixels
from camctrl_jax.files.atomic import write_text


def _matches(source: Source) -> bool:
    document = source.json
    return isinstance(document, dict) and isinstance(document.get("w2c"), list) and "intrinsics" in document


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    document = source.json
    if not document["w2c"]:
        source.fail("w2c", "is empty; expected a 3x4 world-to-camera matrix for every frame")
    frames = len(document["w2c"])
    intrinsics = document["intrinsics"]
    if not isinstance(intrinsics, list) or len(intrinsics) != frames:
        count = len(intrinsics) if isinstance(intrinsics, list) else 0
        source.fail("intrinsics", f"holds {count} matrices for {frames} poses (w2c), expected one for each")
    locations = [f"frame {index}" for index in range(frames)]
    poses, pixels = [], []
    for where, pose, matrix in zip(locations, document["w2c"], intrinsics):
        whole = isinstance(pose, list) and len(pose) == 4
        shape = (4, 4) if whole else (3, 4)
        poses.append(source.array(where, pose, shape, "a 3x4 w2c")[:3])
        if whole and source.array(where, pose, shape, "a 4x4 w2c")[3].tolist() != [0, 0, 0, 1]:
            source.fail(where, f"the last row of the pose is {pose[3]}, expected [0 0 0 1]")
        array = source.array(where, matrix, (3, 3), "a 3x3 intrinsics matrix")
        pixels.append(array[[0, 1, 0, 1], [0, 1, 2, 2]])
    if "imH" in document or "imW" in document:
        image_size = source.size("imH and imW", document, "imH", "imW")
    return PoseFile(
        Cameras(
            inverted(source, poses_from_3x4(np.stack(poses)), locations),
            source.pixel_intrinsics(np.stack(pixels), image_size, locations),
            metric=_is_metric(source),
        ),
        locations,
        image_size=image_size,
    )


def _is_metric(source: Source) -> bool:
    """Whether the file says a factor to metres; null is none."""
    if source.json.get("metric_scale") is None:
        return False
    factor = source.value("the file", source.json, "metric_scale")
    if factor <= 0:
        source.fail("metric_scale", f"is {factor:g}, expected a positive number; take it out for no metres")
    return True


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    height, width = required_size(image_size, "AC3D's JSON")
    pixels = intrinsics_in_pixels(cameras.intrinsics, height, width).tolist()
    document = {
        "imH": height,
        "imW": width,
        "intrinsics": [[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]] for fx, fy, cx, cy in pixels],
        "w2c": (cameras.camera_from_world[:, :3] + 0.0).tolist(),
    }
    if cameras.metric:
        document["metric_scale"] = 1.0  # no further factor is needed
    write_text(path, json.dumps(document, indent=1) + "\n")


FORMAT = Format(
    "ac3d",
    "AC3D camera JSON, metric or not",
    "world-to-camera 3x4, OpenCV axes, metres where metric_scale is given; intrinsics in pixels; no times",
    frozenset({"intrinsics", "metric"}),
    _matches,
    _read,
    _write,
    stores="w2c",
)
