"""HY-WorldPlay's pose JSON: ``{"0": {"extrinsic": 4x4, "K": 3x3}, "1": ...}``.

``extrinsic`` is **camera-to-world** despite its name: the project's ``generate.py`` inverts it into what it
calls world-to-camera. OpenCV axes. Entries come in the order of their numbers. There is one for each latent
frame, that is every fourth picture. ``K`` is in pixels; the picture is not named, and the project's own
reader takes twice the principal point for its size (1080 x 1920 in the files it makes); so does this one,
unless ``image_size`` says otherwise. No times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras, look_like_pixels
from camctrl_jax.camera.formats.names import missing_numbers
from camctrl_jax.camera.formats.posefile import PICTURE_SIZE, Format, PoseFile, Source, required_size
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels, intrinsics_in_pixels
from camctrl_jax.files.atomic import write_text


def _matches(source: Source) -> bool:
    document = source.json
    if not isinstance(document, dict) or not document:
        return False
    return any(
        key.isdecimal() and isinstance(entry, dict) and "extrinsic" in entry
        for key, entry in document.items()
    )


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    document = source.json
    for key in document:
        if not key.isdecimal():
            source.fail(
                f"key {key!r}", "is not the number of a frame; expected {'0': {...}, '1': {...}, ...}"
            )
    keys = sorted(document, key=int)
    for before, key in zip(keys, keys[1:]):
        if int(before) == int(key):
            source.fail(
                f"key {key!r}", f"is the same number as {before!r}; expected one entry for each frame"
            )
    locations = [f"frame {key}" for key in keys]
    poses, pixels = [], []
    for key, where in zip(keys, locations):
        entry = source.object(where, document[key])
        poses.append(source.array(where, entry.get("extrinsic"), (4, 4), "a 4x4 extrinsic, camera-to-world"))
        matrix = source.array(where, entry.get("K"), (3, 3), "a 3x3 K")
        pixels.append(matrix[[0, 1, 0, 1], [0, 1, 2, 2]])
    rows = np.stack(pixels)
    notes = [
        f"one pose for each latent frame, that is every fourth picture: {len(keys)} poses are "
        f"{4 * len(keys) - 3} pictures, and --source-fps takes a quarter of the rate of the pictures",
        *missing_numbers([int(key) for key in keys], "frame"),
    ]
    if not look_like_pixels(rows).any():
        intrinsics = rows
        notes.append("K holds fractions of the picture, not pixels; taken as they are")
    elif image_size is not None:
        intrinsics = intrinsics_from_pixels(rows, *image_size)
    else:
        for frame in np.flatnonzero(~(rows[:, 2:] > 0).all(axis=1)):
            source.fail(locations[frame], f"the principal point of K is not positive; {PICTURE_SIZE}")
        width, height = 2.0 * rows[0, 2:]
        intrinsics = intrinsics_from_pixels(rows, height, width)
        notes.append(
            f"the picture was taken to be {height:g} x {width:g}, twice the principal point; "
            "--image-size HEIGHTxWIDTH says otherwise"
        )
        image_size = (round(height), round(width))
    return PoseFile(
        Cameras(np.stack(poses), intrinsics), locations, image_size=image_size, notes=tuple(notes)
    )


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    height, width = required_size(image_size, "HY-WorldPlay's JSON")
    pixels = intrinsics_in_pixels(cameras.intrinsics, height, width).tolist()
    document = {
        str(index): {
            "extrinsic": (pose + 0.0).tolist(),
            "K": [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]],
        }
        for index, (pose, (fx, fy, cx, cy)) in enumerate(zip(cameras.world_from_camera, pixels))
    }
    write_text(path, json.dumps(document, indent=4) + "\n")


FORMAT = Format(
    "worldplay",
    "HY-WorldPlay JSON of extrinsic and K",
    'camera-to-world 4x4 under the name "extrinsic", OpenCV axes; intrinsics in pixels; one pose for each '
    "latent frame; no times",
    frozenset({"intrinsics"}),
    _matches,
    _read,
    _write,
    stores="c2w",
    pictures_per_pose=4,
)
