"""What a pose file holds, in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.formats.axes import departures
from camctrl_jax.camera.formats.posefile import AS_THE_FORMAT_SAYS, Convention
from camctrl_jax.camera.reading import Reading, read_path


def describe_file(
    path: str | Path,
    *,
    format: str | None = None,
    image_size: tuple[int, int] | None = None,
    convention: Convention = AS_THE_FORMAT_SAYS,
) -> dict[str, Any]:
    """What a pose file holds, as plain values for a table or JSON.

    Args:
        path, format, image_size, convention: as in :func:`~camctrl_jax.camera.load_cameras`.

    Returns:
        path, format, summary, convention, frames, unit ("m" or "units"), path_length, net_distance,
        total_rotation_deg, net_rotation_deg, fov_deg (first frame: horizontal, vertical), intrinsics (first
        frame), intrinsics_vary, intrinsics_from, image_size, duration_s, fps, largest_rotation_deviation,
        notes, hints.

    Raises:
        FileNotFoundError, CameraError, InvalidValue: as there.
    """
    read = read_path(path, Reading(format, image_size, convention))
    pose_format, pose_file = read.format, read.pose_file
    cameras = pose_file.cameras
    otherwise = departures(convention)
    duration = None if cameras.times is None else float(cameras.times[-1] - cameras.times[0])
    return {
        "path": str(path),
        "format": pose_format.name,
        "summary": pose_format.summary,
        "convention": pose_format.convention + (f"; read with: {otherwise}" if otherwise else ""),
        "frames": len(cameras),
        "unit": "m" if cameras.metric else "units",
        "path_length": cameras.path_length,
        "net_distance": float(np.linalg.norm(cameras.positions[-1] - cameras.positions[0])),
        "total_rotation_deg": cameras.total_rotation,
        "net_rotation_deg": cameras.net_rotation,
        "fov_deg": cameras.fov_degrees[0].tolist(),
        "intrinsics": cameras.intrinsics[0].tolist(),
        "intrinsics_vary": bool((cameras.intrinsics != cameras.intrinsics[0]).any()),
        "intrinsics_from": pose_file.intrinsics_from,
        "image_size": None if pose_file.image_size is None else list(pose_file.image_size),
        "duration_s": duration,
        "fps": (len(cameras) - 1) / duration if duration else None,
        "largest_rotation_deviation": float(rotations.deviation(cameras.rotations).max()),
        "notes": list(pose_file.notes),
        "hints": list(read.hints),
    }
