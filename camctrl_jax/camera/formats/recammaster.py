"""ReCamMaster's Unreal Engine JSON: for every frame, for every camera, a 4x4 matrix as text.

``{"frame0": {"cam01": "[r r r 0] [r r r 0] [r r r 0] [x y z 1] ", ...}, ...}``. Every matrix is written
transposed (translation in the last row) and is camera-to-world in Unreal's left-handed axes: x forward, y
right, z up, centimetres. Read: transpose, rename both sides to OpenCV's axes (x right, y down, z forward),
divide by 100. Renaming only the camera's side, as the published loader does, leaves a mirrored world with
determinant -1, whose relative poses are the same as here. Write: the reverse.

A file holds several cameras: ``file.json#cam05`` names one, the first is read otherwise. No intrinsics, no
times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.camera.formats.axes import axes_of_file_from_opencv
from camctrl_jax.camera.formats.posefile import (
    NO_INTRINSICS,
    Format,
    PoseFile,
    Source,
    default_intrinsics,
    numbers,
)
from camctrl_jax.files.atomic import write_text

_MEANING = "a 4x4 matrix written as '[r r r 0] [r r r 0] [r r r 0] [x y z 1]'"


def _matches(source: Source) -> bool:
    document = source.json
    if not isinstance(document, dict) or "frame0" not in document:
        return False
    return isinstance(document["frame0"], dict)


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    document = source.json
    cameras = list(document["frame0"])
    if not cameras:
        source.fail("frame0", "holds no cameras")
    selection = source.selection or cameras[0]
    if selection not in cameras:
        source.fail("", f"holds no camera {selection!r}; it holds {', '.join(cameras)}")
    frames = [f"frame{index}" for index in range(len(document))]
    poses = []
    for frame in frames:
        if frame not in document:
            source.fail(
                frame, f"is missing: the file has {len(document)} frames, expected frame0 to {frames[-1]}"
            )
        if selection not in source.object(frame, document[frame]):
            source.fail(frame, f"has no camera {selection!r}, which frame0 has")
        poses.append(_matrix(source, f"{frame}, {selection}", document[frame][selection]))
    unreal = np.stack(poses)
    unreal[:, :3, 3] /= 100.0
    notes = (
        ()
        if len(cameras) == 1
        else (f"camera {selection} of {len(cameras)}; name another as {source.path.name}#{cameras[-1]}",)
    )
    return PoseFile(
        Cameras(unreal, default_intrinsics(len(frames)), metric=True),
        [f"{frame}, {selection}" for frame in frames],
        NO_INTRINSICS,
        image_size,
        notes=notes,
    )


def _matrix(source: Source, where: str, text: object) -> np.ndarray:
    rows = re.findall(r"\[([^\]]*)\]", text) if isinstance(text, str) else []
    try:
        transposed = np.array([[float(word) for word in row.split()] for row in rows])
    except ValueError:
        source.fail(where, f"expected {_MEANING}, found {text!r}")
    if transposed.shape != (4, 4):
        source.fail(where, f"expected {_MEANING}, found {text!r}")
    return transposed.T


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    if not cameras.metric:
        raise CameraError(
            "ReCamMaster's files are in centimetres, but the unit of this path is unknown; state it first "
            "with Cameras.scaled(factor, metric=True) (--scale FACTOR --metric)"
        )
    poses = cameras.world_from_camera.copy()
    poses[:, :3, 3] *= 100.0
    unreal_from_opencv = axes_of_file_from_opencv(FORMAT.axes)  # a mirror, as Unreal is left-handed
    unreal = unreal_from_opencv @ poses @ unreal_from_opencv.T
    document = {
        f"frame{index}": {"cam01": "".join(f"[{numbers(row)}] " for row in pose.T)}
        for index, pose in enumerate(unreal)
    }
    write_text(path, json.dumps(document, indent=4) + "\n")


FORMAT = Format(
    "recammaster",
    "ReCamMaster JSON, Unreal Engine cameras",
    "camera-to-world 4x4 written transposed, Unreal axes (x forward, y right, z up, left-handed), "
    "centimetres; no intrinsics, no times",
    frozenset({"metric"}),
    _matches,
    _read,
    _write,
    stores="c2w",
    axes="FRU",
    world_in_axes=True,
)
