"""``transforms.json`` of NeRF, nerfstudio, instant-ngp and SEVA.

Camera-to-world 4x4 matrices in **OpenGL** axes (x right, y up, z backward); the second and third column
change sign. The world, z up in most of these files, is left as it is. Intrinsics are ``fl_x fl_y cx cy w
h`` in pixels with pixel centres at +0.5, for the file or for a frame; or ``camera_angle_x`` (and ``_y``) in
radians with the principal point in the middle. A file with an angle alone needs the aspect ratio: ``w`` and
``h``, else ``image_size``, else the size of the first picture if it is a PNG beside the file, else a
square. Lens distortion is reported and ignored; fisheye, spherical and orthographic cameras are refused,
whether ``camera_model`` or any other key or value says so, for the file or a frame. Frames come in the
order of the picture names. No times.
Write: nerfstudio's form; a ``metric`` key, unknown to others, says that translations are metres.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.axes import axes_of_file_from_opencv
from camctrl_jax.camera.formats.lenses import check_pinhole
from camctrl_jax.camera.formats.pictures import png_size
from camctrl_jax.camera.formats.posefile import (
    PICTURE_SIZE,
    Format,
    PoseFile,
    Source,
    picture_names,
    required_size,
)
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels, intrinsics_in_pixels
from camctrl_jax.files.atomic import write_text

_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_PINHOLES = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "OPENCV",
    "FULL_OPENCV",
    "SIMPLE_RADIAL",
    "RADIAL",
    "PERSPECTIVE",
    "",
)
_MODEL_KEYS = ("camera_model", "camera_type")


def _matches(source: Source) -> bool:
    path = source.path / "transforms.json"
    if source.path.is_dir():
        return path.is_file() and _matches(Source(path))
    return isinstance(source.json, dict) and isinstance(source.json.get("frames"), list)


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    if source.path.is_dir():
        return _read(dataclasses.replace(source, path=source.path / "transforms.json"), image_size)
    document = source.json
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not frames:
        source.fail("frames", "is missing or empty; expected a list with a transform_matrix for each picture")
    _check_pinhole(source, "", document)
    locations, poses, intrinsics, sizes, notes = [], [], [], set(), []
    for index, frame in enumerate(frames):
        where = f"frame {index}"
        if not isinstance(frame, dict) or "transform_matrix" not in frame:
            source.fail(where, "has no transform_matrix; expected a 4x4 camera-to-world matrix")
        locations.append(f"{where} ({frame['file_path']})" if "file_path" in frame else where)
        _check_pinhole(source, locations[-1], frame)
        poses.append(source.array(locations[-1], frame["transform_matrix"], (4, 4), "a 4x4 transform_matrix"))
        row, size = _intrinsics(source, locations[-1], {**document, **frame}, image_size, notes)
        intrinsics.append(row)
        sizes.add(size)
        if any({**document, **frame}.get(name) for name in _DISTORTION):
            notes.append("lens distortion is ignored; undistort the pictures for exact rays")
    names = tuple(str(frame.get("file_path") or "") for frame in frames)
    if any(names) and not all(names):
        notes.append(
            f"{names.count('')} of {len(names)} frames name no picture (file_path): the poses come in the "
            "order of the file"
        )
    cameras = Cameras(np.stack(poses), np.stack(intrinsics), metric=document.get("metric") is True)
    return PoseFile(
        cameras,
        locations,
        image_size=sizes.pop() if len(sizes) == 1 else image_size,
        names=names if all(names) else (),
        notes=tuple(dict.fromkeys(notes)),
    )


def _check_pinhole(source: Source, where: str, mapping: Mapping[str, Any]) -> None:
    """Refuse a file or a frame that says, in one of many ways, that its pictures are of another kind."""
    for key in _MODEL_KEYS:
        model = mapping.get(key)
        if model is not None and str(model).upper() not in _PINHOLES:
            source.fail(
                f"{where}, {key}" if where else key,
                f"{model} is not a pinhole; known are {', '.join(_PINHOLES[:-2])}. Undistort first",
            )
    check_pinhole(source, where, mapping)


def _intrinsics(
    source: Source, where: str, frame: Mapping[str, Any], image_size: tuple[int, int] | None, notes: list[str]
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Fractions [4] and picture size of one frame, whose own keys stand before the file's."""
    size = source.size(where, frame, "h", "w") if "h" in frame and "w" in frame else image_size
    if "fl_x" in frame:
        focal_x = source.value(where, frame, "fl_x")
        focal_y = source.value(where, frame, "fl_y", focal_x)
        if size is None:
            source.fail(
                where,
                f"fl_x is {focal_x:g} pixels, but there are no w and h to say of how many; {PICTURE_SIZE}",
            )
        height, width = size
        centre = source.value(where, frame, "cx", width / 2), source.value(where, frame, "cy", height / 2)
        return intrinsics_from_pixels((focal_x, focal_y, *centre), *size), size
    if "camera_angle_x" not in frame:
        source.fail(where, "has neither fl_x nor camera_angle_x; one of them must give the field of view")
    focal_x = _focal(source, where, frame, "camera_angle_x")
    if "camera_angle_y" in frame:
        return np.array((focal_x, _focal(source, where, frame, "camera_angle_y"), 0.5, 0.5)), size
    if size is None:
        size = png_size(source.path.parent / str(frame.get("file_path", "")).replace("\0", ""))
    if size is None:
        notes.append(
            "the picture size is unknown: a square picture was assumed; --image-size HEIGHTxWIDTH corrects it"
        )
        return np.array((focal_x, focal_x, 0.5, 0.5)), None
    return np.array((focal_x, focal_x * size[1] / size[0], 0.5, 0.5)), size


def _focal(source: Source, where: str, frame: Mapping[str, Any], key: str) -> float:
    """The focal length, as a fraction of the picture, of a field of view in radians."""
    angle = source.value(where, frame, key)
    if not 0.0 < angle < math.pi:
        source.fail(where, f"{key} is {angle:g}, expected radians between 0 and pi; is it in degrees?")
    return 0.5 / math.tan(0.5 * angle)


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    height, width = required_size(image_size, "transforms.json")
    pixels = intrinsics_in_pixels(cameras.intrinsics, height, width)
    # The matrix is its own inverse.
    poses = cameras.world_from_camera @ axes_of_file_from_opencv(FORMAT.axes) + 0.0
    keys = ("fl_x", "fl_y", "cx", "cy")
    document: dict[str, Any] = {"camera_model": "PINHOLE", "w": width, "h": height}
    shared = bool((pixels == pixels[0]).all())
    if shared:
        document |= dict(zip(keys, pixels[0].tolist()))
    if cameras.metric:
        document["metric"] = True
    document["frames"] = [
        {
            "file_path": name,
            **({} if shared else dict(zip(keys, row.tolist()))),
            "transform_matrix": pose.tolist(),
        }
        for name, row, pose in zip(picture_names(names, len(cameras)), pixels, poses)
    ]
    write_text(path, json.dumps(document, indent=2) + "\n")


FORMAT = Format(
    "transforms_json",
    "transforms.json: NeRF, Blender, nerfstudio, instant-ngp, SEVA",
    "camera-to-world 4x4, OpenGL axes (x right, y up, z backward); intrinsics in pixels or as an angle; no "
    "times",
    frozenset({"intrinsics", "metric"}),
    _matches,
    _read,
    _write,
    stores="c2w",
    axes="RUB",
)
