"""RealEstate10K text files, and the presets that CameraCtrl, AC3D, VideoX-Fun and CamI2V ship in this form.

Line 1 is the video's URL or blank. Every further line is one frame, 19 numbers: time in microseconds; fx/W,
fy/H, cx/W, cy/H; two zeros; the 3x4 world-to-camera matrix [R|t] row by row, OpenCV axes (x right, y down,
z forward).
Read: poses are inverted; times become seconds, and are left out where they do not increase (presets repeat
0 or 114514); those that can only be nanoseconds are converted. Write: the inverse, with every digit;
microseconds are rounded to integers. Our own files of a metric path say so in line 1, which all readers of
this format skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import (
    Format,
    PoseFile,
    Source,
    inverted,
    number,
    numbers,
    poses_from_3x4,
)
from camctrl_jax.camera.formats.times import in_seconds
from camctrl_jax.files.atomic import write_text

_MEANING = "time, fx/W, fy/H, cx/W, cy/H, 0, 0 and 12 numbers of the 3x4 world-to-camera matrix"
_METRIC_HEADER = "camctrl_jax: translations in metres"


def _matches(source: Source) -> bool:
    rows = source.rows
    if not rows or source.json is not None:
        return False
    return source.columns == 19 or rows[0][1][0].startswith(("http://", "https://"))


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    lines = source.text.splitlines()
    header = lines[0].strip() if lines else ""
    rows = source.rows
    notes: tuple[str, ...] = ()
    if rows and rows[0][0] == 1:
        if _is_frame(rows[0][1]):
            notes = (
                "line 1 is a pose; other readers of this format skip it, as it should be a URL or blank",
            )
        else:
            rows = rows[1:]
    if not rows:
        source.fail("line 2", f"holds no poses; expected one line per frame: {_MEANING}")
    values = np.array([source.numbers(line, words, 19, _MEANING) for line, words in rows])  # [T, 19]
    locations = [f"line {line}" for line, _ in rows]
    intrinsics, pixel_notes = source.normalised_intrinsics(values[:, 1:5], image_size, locations)
    times, time_notes = in_seconds(values[:, 0], "microseconds")
    poses = inverted(source, poses_from_3x4(values[:, 7:]), locations)
    cameras = Cameras(poses, intrinsics, times, metric=header == _METRIC_HEADER)
    return PoseFile(cameras, locations, image_size=image_size, notes=notes + time_notes + pixel_notes)


def _is_frame(words: Sequence[str]) -> bool:
    try:
        return len([float(word) for word in words]) == 19
    except ValueError:
        return False


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    times = np.zeros(len(cameras)) if cameras.times is None else np.round(cameras.times * 1e6)
    lines = [_METRIC_HEADER if cameras.metric else ""]
    for time, row, pose in zip(times, cameras.intrinsics, cameras.camera_from_world):
        lines.append(f"{int(time)} {' '.join(map(number, row))} 0 0 {numbers(pose[:3])}")
    write_text(path, "\n".join(lines) + "\n")


FORMAT = Format(
    "realestate10k",
    "RealEstate10K text: CameraCtrl, AC3D, VideoX-Fun, CamI2V",
    "world-to-camera 3x4 rows, OpenCV axes; intrinsics as fractions; times in microseconds",
    frozenset({"intrinsics", "times", "metric"}),
    _matches,
    _read,
    _write,
    stores="w2c",
)
