"""TUM RGB-D trajectories: ``timestamp tx ty tz qx qy qz qw`` per line, ``#`` starts a comment.

Camera-to-world: the translation is the camera's centre, the quaternion (scalar last) turns camera axes into
world axes. The benchmark's cameras are optical frames, that is OpenCV axes. Timestamps are seconds; those
that can only be nanoseconds, microseconds or milliseconds are converted. No intrinsics. Lengths are metres
by the benchmark's definition, but monocular SLAM writes its arbitrary scale in the same form: the reader
leaves ``metric`` false. Write: unit quaternions with scalar part not negative; a path without times gets
its frame numbers as timestamps, says so in the first line, and is read back without times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import (
    NO_INTRINSICS,
    Format,
    PoseFile,
    Source,
    default_intrinsics,
    number,
    numbers,
)
from camctrl_jax.camera.formats.times import in_seconds
from camctrl_jax.files.atomic import write_text

_MEANING = "timestamp tx ty tz qx qy qz qw"
_FRAME_NUMBERS = "(timestamp = frame number)"


def _matches(source: Source) -> bool:
    return source.columns == 8 and source.json is None


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    if not source.rows:
        source.fail("", f"holds no poses; expected one line per frame: {_MEANING}")
    values = np.array([source.numbers(line, words, 8, _MEANING) for line, words in source.rows])  # [T, 8]
    locations = [f"line {line}" for line, _ in source.rows]
    poses = poses_from_quaternions(source, values[:, 1:4], values[:, 4:], locations, FORMAT.quaternions)
    if _FRAME_NUMBERS in source.text.partition("\n")[0]:
        times, notes = None, ("the time stamps are frame numbers, as its first line says: it has no times",)
    else:
        times, notes = in_seconds(values[:, 0], "seconds")
    return PoseFile(
        Cameras(poses, default_intrinsics(len(poses)), times),
        locations,
        NO_INTRINSICS,
        image_size,
        notes=notes,
    )


def poses_from_quaternions(
    source: Source, translations: np.ndarray, quaternions: np.ndarray, locations: Sequence[str], order: str
) -> np.ndarray:
    """Poses of translations and nearly unit quaternions.

    Args:
        source: what they come from; its convention stands before ``order``.
        translations: float64 [T, 3].
        quaternions: float64 [T, 4], in the order of the file.
        locations: where each stands, for messages.
        order: "xyzw" or "wxyz", what the format says.

    Returns:
        float64 [T, 4, 4].
    """
    with np.errstate(over="ignore"):
        length = np.linalg.norm(quaternions, axis=1)
    for frame in np.flatnonzero(~(np.abs(length - 1.0) < 0.01)):  # not (a < b): true for NaN as well
        listed = numbers(quaternions[frame]).replace(" ", ", ")
        source.fail(
            locations[frame],
            f"the quaternion ({listed}) has length {length[frame]:.6g}, expected 1; check the order of the "
            "columns",
        )
    scalar_first = (source.convention.quaternions or order) == "wxyz"
    xyzw = quaternions[:, [1, 2, 3, 0]] if scalar_first else quaternions
    poses = np.tile(np.eye(4), (len(xyzw), 1, 1))
    poses[:, :3, :3] = rotations.from_quaternions(xyzw)
    poses[:, :3, 3] = translations
    return poses


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    times = np.arange(len(cameras)) if cameras.times is None else cameras.times
    lines = [f"# {_MEANING}" if cameras.times is not None else f"# {_MEANING} (timestamp = frame number)"]
    for time, position, quaternion in zip(
        times, cameras.positions, rotations.to_quaternions(cameras.rotations)
    ):
        lines.append(f"{number(time)} {numbers(position)} {numbers(quaternion)}")
    write_text(path, "\n".join(lines) + "\n")


FORMAT = Format(
    "tum",
    "TUM RGB-D trajectory: SLAM benchmarks, evo",
    "camera-to-world translation and quaternion x y z w, OpenCV axes; no intrinsics; times in seconds",
    frozenset({"times"}),
    _matches,
    _read,
    _write,
    stores="c2w",
    quaternions="xyzw",
)
