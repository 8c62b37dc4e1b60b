"""A COLMAP folder: ``images/`` and ``sparse/0`` with cameras, poses and points, as trainers of splats take it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import save_cameras
from camctrl_jax.camera.formats.posefile import picture_names
from camctrl_jax.estimators.protocols import PointCloud
from camctrl_jax.files.atomic import written_file
from camctrl_jax.video.pictures import write_png


def write_pictures_and_cameras(folder: Path, frames: np.ndarray, cameras: Cameras) -> list[str]:
    """Write the frames u8 [T, H, W, 3] to ``images/`` and their cameras to ``sparse/0``; the pictures' names.

    The model has no points yet: :func:`write_points` gives it some.
    """
    names = picture_names((), len(frames))
    for name, frame in zip(names, frames, strict=True):
        write_png(folder / "images" / name, np.ascontiguousarray(frame))
    save_cameras(cameras, folder / "sparse" / "0", format="colmap", image_size=frames.shape[1:3], names=names)
    return names


def write_points(folder: Path, cloud: PointCloud) -> None:
    """Write a cloud as ``points3D.bin`` of ``sparse/0``.

    The points have no tracks: no picture says that it sees them, as in models that are made of depth
    sensors. Trainers of splats start from their places and colours alone.
    """
    row = np.dtype(
        [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")], align=False
    )
    rows = np.zeros(len(cloud.points), row)
    rows["id"] = np.arange(1, len(rows) + 1)
    rows["xyz"], rows["rgb"] = cloud.points, cloud.colours
    rows["error"] = -1.0  # COLMAP's "not known"
    with written_file(folder / "sparse" / "0" / "points3D.bin") as file:
        file.write(struct.pack("<Q", len(rows)))
        file.write(rows.tobytes())
