"""OpenSfM ``reconstruction.json``.

Per shot: ``rotation``, a world-to-camera axis-angle vector in radians, and ``translation``, with X_cam = R
X + t, OpenCV axes. The world is a local east-north-up frame whose scale comes from GPS tags if there were
any, so ``metric`` stays false. Focal lengths and principal points are divided by the longer side, the
latter measured from the middle of the picture. Shots come in the order of capture, or of names where times
do not tell them apart; capture times become seconds from the first shot. Of several reconstructions the one
with most shots is read. Lens distortion is reported and ignored; fisheye and spherical cameras are refused.
Write: ``brown`` cameras, one shared if all frames agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import (
    Format,
    PoseFile,
    Source,
    increasing,
    inverted,
    picture_names,
    required_size,
)
from camctrl_jax.files.atomic import write_text

_PINHOLES = ("perspective", "brown", "radial", "simple_radial")
_DISTORTION = ("k1", "k2", "k3", "p1", "p2")


def _matches(source: Source) -> bool:
    document = source.json
    return (
        isinstance(document, list)
        and bool(document)
        and isinstance(document[0], dict)
        and isinstance(document[0].get("shots"), dict)
    )


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    reconstructions = [
        entry
        for entry in source.json
        if isinstance(entry, dict) and isinstance(entry.get("shots"), dict) and entry["shots"]
    ]
    if not reconstructions:
        source.fail("", "holds no reconstruction with shots")
    reconstruction = max(reconstructions, key=lambda entry: len(entry["shots"]))
    notes: list[str] = []
    if len(reconstructions) > 1:
        notes.append(f"the largest of {len(reconstructions)} reconstructions was read")
    shots = list(reconstruction["shots"].items())
    times = np.array([_capture_time(source, f"shot {name}", shot) for name, shot in shots])
    order = np.argsort(times, kind="stable")
    kept_times = times[order] - times[order[0]] if increasing(times[order]) else None
    if kept_times is not None:
        shots = [shots[index] for index in order]
    vectors, translations, intrinsics, sizes, locations = [], [], [], set(), []
    for name, shot in shots:
        where = f"shot {name}"
        locations.append(where)
        for key, values in (("rotation", vectors), ("translation", translations)):
            values.append(source.array(where, shot.get(key), (3,), f"a {key} of 3 numbers"))
        cameras = source.object("cameras", reconstruction.get("cameras"))
        if str(shot.get("camera")) not in cameras:
            source.fail(where, f"uses camera {shot.get('camera')!r}, which the file lacks")
        camera = source.object(f"camera {shot['camera']}", cameras[shot["camera"]])
        row, size = _intrinsics(source, where, camera)
        intrinsics.append(row)
        sizes.add(size)
        if any(camera.get(key) for key in _DISTORTION):
            notes.append("lens distortion is ignored; undistort the pictures for exact rays")
    camera_from_world = np.tile(np.eye(4), (len(shots), 1, 1))
    camera_from_world[:, :3, :3] = rotations.from_vectors(np.stack(vectors))
    camera_from_world[:, :3, 3] = translations
    return PoseFile(
        Cameras(inverted(source, camera_from_world, locations), np.stack(intrinsics), kept_times),
        locations,
        image_size=sizes.pop() if len(sizes) == 1 else image_size,
        names=tuple(name for name, _ in shots),
        notes=tuple(dict.fromkeys(notes)),
    )


def _capture_time(source: Source, where: str, shot: Any) -> float:
    """Seconds, or NaN where the shot tells none."""
    shot = source.object(where, shot)
    return source.value(where, shot, "capture_time") if shot.get("capture_time") is not None else np.nan


def _intrinsics(source: Source, where: str, camera: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int]]:
    """Fractions [4] and picture size of one camera."""
    model = camera.get("projection_type", "perspective")
    if model not in _PINHOLES:
        source.fail(where, f"projection type {model!r} is not a pinhole; known are {', '.join(_PINHOLES)}")
    height, width = source.size(f"{where}, its camera", camera, "height", "width")
    focal_x = source.value(f"{where}, its camera", camera, "focal_x" if "focal_x" in camera else "focal")
    focal_y = source.value(f"{where}, its camera", camera, "focal_y", focal_x)
    centre_x, centre_y = (source.value(f"{where}, its camera", camera, key, 0.0) for key in ("c_x", "c_y"))
    longer = max(width, height)
    return np.array(
        (
            focal_x * longer / width,
            focal_y * longer / height,
            0.5 + centre_x * longer / width,
            0.5 + centre_y * longer / height,
        )
    ), (height, width)


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    height, width = required_size(image_size, "OpenSfM")
    longer = max(width, height)
    shared = bool((cameras.intrinsics == cameras.intrinsics[0]).all())
    rows = cameras.intrinsics[:1] if shared else cameras.intrinsics
    document_cameras = {
        f"camera {index}": {
            "projection_type": "brown",
            "width": width,
            "height": height,
            "focal_x": fx * width / longer,
            "focal_y": fy * height / longer,
            "c_x": (cx - 0.5) * width / longer,
            "c_y": (cy - 0.5) * height / longer,
            **dict.fromkeys(_DISTORTION, 0.0),
        }
        for index, (fx, fy, cx, cy) in enumerate(rows.tolist())
    }
    extrinsics = cameras.camera_from_world
    vectors = rotations.to_vectors(extrinsics[:, :3, :3])
    shots = {}
    for index, name in enumerate(picture_names(names, len(cameras))):
        shots[name] = {
            "rotation": vectors[index].tolist(),
            "translation": extrinsics[index, :3, 3].tolist(),
            "camera": "camera 0" if shared else f"camera {index}",
        }
        if cameras.times is not None:
            shots[name]["capture_time"] = float(cameras.times[index])
    write_text(
        path, json.dumps([{"cameras": document_cameras, "shots": shots, "points": {}}], indent=1) + "\n"
    )


FORMAT = Format(
    "opensfm",
    "OpenSfM reconstruction.json",
    "world-to-camera axis-angle and translation, OpenCV axes; focal lengths as fractions of the longer side; "
    "times in seconds",
    frozenset({"intrinsics", "times"}),
    _matches,
    _read,
    _write,
    stores="w2c",
)
