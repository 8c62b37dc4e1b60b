"""``camera_path.json`` of nerfstudio's viewer, which renders it. Read only.

``camera_path`` lists for every frame ``camera_to_world``, 16 numbers row by row, in OpenGL axes, and
``fov``, the *vertical* field of view in degrees. Pixels are square and the principal point is the middle:
``render_height`` and ``render_width`` give the rest (``aspect``, which the project's own reader ignores,
only where they are missing). The path lasts ``seconds``, else runs at ``fps``; ``render_time``, the time
of a moving scene, is none of the path's. Lengths are the scene's, not metres. Fisheye and spherical
cameras, of the file or an entry, are refused. A file with ``keyframes`` alone gives these, without times;
their ``matrix`` is row by row, or column by column in files of older versions, which the last row tells.
Established from the project's ``cameras/camera_paths.py`` and from files that others write for it.

Not written: it has no place for a principal point or for pixels that are not square.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.lenses import check_pinhole
from camctrl_jax.camera.formats.posefile import Format, PoseFile, Source


def _matches(source: Source) -> bool:
    document = source.json
    if not isinstance(document, dict):
        return False
    keyframes = isinstance(document.get("keyframes"), list)
    return isinstance(document.get("camera_path"), list) or (
        keyframes and any(key in document for key in ("camera_type", "render_height", "default_fov"))
    )


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    document = source.json
    _check_perspective(source, "", document)
    notes: list[str] = []
    entries, key = document.get("camera_path") or [], "camera_to_world"
    if not entries:
        entries, key = document.get("keyframes") or [], "matrix"
        notes.append("there is no camera_path, only keyframes: they were read as frames, without times")
    if not entries:
        source.fail("camera_path", "is empty, and so are the keyframes; expected one entry for every frame")
    if "render_height" in document or "render_width" in document:
        image_size = source.size("the file", document, "render_height", "render_width")
    locations = [f"{'frame' if key == 'camera_to_world' else 'keyframe'} {i}" for i in range(len(entries))]
    poses, intrinsics = [], []
    for where, entry in zip(locations, entries):
        entry = source.object(where, entry)
        _check_perspective(source, where, entry)
        poses.append(_pose(source, where, entry, key, notes))
        intrinsics.append(_intrinsics(source, where, entry, document, image_size, notes))
    times = None
    if key == "camera_to_world":
        times = _times(source, document, len(entries), notes)
    return PoseFile(
        Cameras(np.stack(poses), np.stack(intrinsics), times),
        locations,
        image_size=image_size,
        notes=tuple(dict.fromkeys(notes)),
    )


def _check_perspective(source: Source, where: str, mapping: Mapping[str, Any]) -> None:
    """Refuse a path or an entry of another camera than a pinhole."""
    kind = mapping.get("camera_type", "perspective")
    if str(kind).lower() != "perspective":
        source.fail(
            f"{where}, camera_type" if where else "camera_type",
            f"{kind} is not a pinhole; expected perspective",
        )
    check_pinhole(source, where, mapping)


def _pose(source: Source, where: str, entry: Mapping[str, Any], key: str, notes: list[str]) -> np.ndarray:
    """The 4x4 camera-to-world matrix of one entry, in OpenGL axes."""
    found = entry.get(key)
    if isinstance(found, str):  # of older viewers
        try:
            found = json.loads(found)
        except json.JSONDecodeError:
            source.fail(where, f"expected a {key} of 16 numbers, found {found[:60]!r}")
    if isinstance(found, list) and len(found) == 4:
        matrix = source.array(where, found, (4, 4), f"a {key} of 16 numbers")
    else:
        matrix = source.array(where, found, (16,), f"a {key} of 16 numbers").reshape(4, 4)
    last_row_is_translation = (matrix[3] != (0, 0, 0, 1)).any() and (matrix[:, 3] == (0, 0, 0, 1)).all()
    if key == "matrix" and last_row_is_translation:
        notes.append("the matrices of the keyframes are column by column")
        return matrix.T
    return matrix


def _intrinsics(
    source: Source,
    where: str,
    entry: Mapping[str, Any],
    document: Mapping[str, Any],
    image_size: tuple[int, int] | None,
    notes: list[str],
) -> np.ndarray:
    """Fractions [4] of one entry."""
    default = document.get("default_fov")
    degrees = source.value(where, entry, "fov", default)
    if not math.pi < degrees < 180.0:
        radians = "; is it in radians?" if 0.0 < degrees <= math.pi else ""
        source.fail(where, f"fov is {degrees:g}, expected the vertical angle in degrees, below 180{radians}")
    focal_y = 0.5 / math.tan(math.radians(degrees) / 2.0)
    if image_size is not None:
        aspect = image_size[1] / image_size[0]
    elif "aspect" in entry:
        aspect = source.value(where, entry, "aspect")
        if aspect <= 0:
            source.fail(where, f"aspect is {aspect:g}, expected width by height")
    else:
        aspect = 1.0
        notes.append(
            "the picture size is unknown: a square picture was assumed; --image-size HEIGHTxWIDTH corrects it"
        )
    return np.array((focal_y / aspect, focal_y, 0.5, 0.5))


def _times(source: Source, document: Mapping[str, Any], frames: int, notes: list[str]) -> np.ndarray | None:
    """Seconds of every frame, from the length of the path or its rate."""
    given = {
        key: source.value("the file", document, key)
        for key in ("seconds", "fps")
        if document.get(key) is not None
    }
    for key, value in given.items():
        if value <= 0:
            source.fail(key, f"is {value:g}, expected a positive number")
    if not given:
        return None
    rate = frames / given["seconds"] if "seconds" in given else given["fps"]
    if "fps" in given and abs(rate / given["fps"] - 1.0) > 0.1:
        notes.append(
            f"{frames} frames in {given['seconds']:g} s are {rate:.4g} frames/s, not the fps of "
            f"{given['fps']:g} that the file gives; the seconds were taken"
        )
    return np.arange(frames) / rate


FORMAT = Format(
    "camera_path",
    "nerfstudio camera_path.json (read only)",
    "camera-to-world 4x4, OpenGL axes (x right, y up, z backward); vertical field of view in degrees; times "
    "from seconds or fps",
    frozenset({"intrinsics", "times"}),
    _matches,
    _read,
    None,
    stores="c2w",
    axes="RUB",
)
