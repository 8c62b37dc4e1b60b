"""A COLMAP project: ``images/`` and ``sparse/0`` with cameras, poses and points, as trainers of splats take
it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import save_cameras
from camctrl_jax.camera.formats.posefile import picture_names
from camctrl_jax.camera.intrinsics import intrinsics_in_pixels
from camctrl_jax.estimators.protocols import PointCloud, SfmResult
from camctrl_jax.files.atomic import written_file
from camctrl_jax.video.pictures import write_png

_NOT_KNOWN = -1.0  # COLMAP's own word for a reprojection error


def write_pictures(folder: Path, frames: np.ndarray) -> list[str]:
    """Write frames u8 [T, H, W, 3] as PNG files; their names."""
    names = picture_names((), len(frames))
    for name, frame in zip(names, frames, strict=True):
        write_png(folder / name, np.ascontiguousarray(frame))
    return names


def write_model(
    folder: Path,
    cameras: Cameras,
    size: tuple[int, int],
    names: list[str],
    cloud: PointCloud,
    model: SfmResult | None = None,
) -> None:
    """Write ``cameras.bin``, ``images.bin`` and ``points3D.bin``.

    Args:
        cameras: of the pictures; size: theirs, (height, width).
        names: of the pictures.
        cloud: the points.
        model: what is seen where, of the same points; without it no picture says that it sees them, and
            trainers of splats start from places and colours alone.
    """
    save_cameras(cameras, folder, format="colmap", image_size=size, names=names)
    count = len(cloud.points)
    frame, xy, point = np.zeros(0, int), np.zeros((0, 2)), np.zeros(0, int)
    if model is not None:
        frame, xy, point = model.observation_frame, model.observation_xy, model.observation_point
        order = np.lexsort((point, frame))
        frame, xy, point = frame[order], xy[order], point[order]
    starts = np.searchsorted(frame, np.arange(len(names) + 1))
    place = np.arange(len(frame)) - starts[frame]  # of an observation within its picture
    if model is not None:
        _write_images(folder / "images.bin", cameras, size, names, starts, xy, point)
    with written_file(folder / "points3D.bin") as file:
        file.write(struct.pack("<Q", count))
        file.write(_points(cloud, frame, place, point))


def _write_images(
    path: Path,
    cameras: Cameras,
    size: tuple[int, int],
    names: list[str],
    starts: np.ndarray,
    xy: np.ndarray,
    point: np.ndarray,
) -> None:
    """Pictures with what they see, in place of those of the camera room, which see nothing."""
    # In pixels, as the camera room tells whether there is one camera or one for each picture.
    pixels = intrinsics_in_pixels(cameras.intrinsics, *size)
    shared = bool((pixels == pixels[0]).all())
    inverse = cameras.camera_from_world
    quaternions = rotations.to_quaternions(inverse[:, :3, :3])[:, [3, 0, 1, 2]]
    seen = np.zeros(len(xy), np.dtype([("xy", "<f8", 2), ("point", "<i8")]))
    seen["xy"], seen["point"] = xy, point + 1
    with written_file(path) as file:
        file.write(struct.pack("<Q", len(names)))
        for index, name in enumerate(names):
            own = seen[starts[index] : starts[index + 1]]
            camera = 1 if shared else index + 1
            file.write(struct.pack("<i7di", index + 1, *quaternions[index], *inverse[index, :3, 3], camera))
            file.write(name.encode("utf-8") + b"\0" + struct.pack("<Q", len(own)) + own.tobytes())


def _points(cloud: PointCloud, frame: np.ndarray, place: np.ndarray, point: np.ndarray) -> bytes:
    """The records of all points, each with its track."""
    row = np.dtype(
        [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")], align=False
    )
    rows = np.zeros(len(cloud.points), row)
    rows["id"] = np.arange(1, len(rows) + 1)
    rows["xyz"], rows["rgb"], rows["error"] = cloud.points, cloud.colours, _NOT_KNOWN
    rows["track"] = np.bincount(point, minlength=len(rows))
    if not len(point):
        return rows.tobytes()
    order = np.argsort(point, kind="stable")
    tracks = np.stack([frame[order] + 1, place[order]], axis=1).astype("<i4")
    ends = np.cumsum(rows["track"].astype(int))
    return b"".join(
        rows[index].tobytes() + tracks[end - int(rows["track"][index]) : end].tobytes()
        for index, end in enumerate(ends)
    )
