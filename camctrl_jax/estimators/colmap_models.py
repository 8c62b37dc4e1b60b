"""Whole COLMAP models: cameras with distortion, points and what is seen where.

The camera room reads the same files for their path alone; here everything counts. Binary models, as COLMAP,
pycolmap and VGGSfM write them: ``<folder>/images.bin``, ``<folder>/sparse``, ``<folder>/0``, ``<folder>/1``,
...
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.estimators.protocols import SfmResult, SfmStatus

# Number of a camera model: (count of parameters, places of fx, fy, cx, cy, places of k1, k2, p1, p2).
_MODELS = {
    0: (3, (0, 0, 1, 2), ()),  # SIMPLE_PINHOLE
    1: (4, (0, 1, 2, 3), ()),  # PINHOLE
    2: (4, (0, 0, 1, 2), (3,)),  # SIMPLE_RADIAL
    3: (5, (0, 0, 1, 2), (3, 4)),  # RADIAL
    4: (8, (0, 1, 2, 3), (4, 5, 6, 7)),  # OPENCV
}


@dataclass(frozen=True, eq=False)
class _View:
    camera: int
    name: str
    pose: np.ndarray  # f64 [3, 4], camera from world
    xy: np.ndarray  # f64 [M, 2]
    points: np.ndarray  # i64 [M], ids


def model_folders(folder: Path) -> list[Path]:
    """The folders below (or at) ``folder`` that hold a binary model, as SfM programs lay them out."""
    places = [folder, folder / "sparse"]
    for parent in tuple(places):
        if parent.is_dir():
            numbered = [entry for entry in parent.iterdir() if entry.name.isdigit()]
            places += sorted(numbered, key=lambda entry: int(entry.name))
    return [place for place in places if (place / "images.bin").is_file()]


def read_models(
    folder: Path, names: Sequence[str], image_size: tuple[int, int], *, seconds: float = 0.0
) -> SfmResult:
    """The largest of the models in a folder.

    Args:
        folder: see :func:`model_folders`.
        names: picture names of all T frames, in order; a model's pictures are found by them, or by the file
            name alone.
        image_size: (height, width) of the frames given; observations are scaled to it.

    Returns:
        FAILED with ``no_model`` where there is none.

    Raises:
        InvalidValue: a broken file, an unknown picture or camera model.
    """
    results = [_read_model(place, names, image_size, seconds) for place in model_folders(folder)]
    results = [result for result in results if result.registered.any()]
    if not results:
        return SfmResult.failed(len(names), "no_model", "no model was found.", seconds)
    results.sort(key=lambda result: (-int(result.registered.sum()), -len(result.points)))
    return replace(results[0], model_sizes=tuple(int(result.registered.sum()) for result in results))


def _read_model(folder: Path, names: Sequence[str], size: tuple[int, int], seconds: float) -> SfmResult:
    cameras, views = _cameras(folder / "cameras.bin"), _views(folder / "images.bin")
    ids, points, _, errors, lengths = _points(folder / "points3D.bin")
    places = {name: index for index, name in enumerate(names)}
    places |= {Path(name).name: index for index, name in enumerate(names)}
    result = SfmResult.failed(len(names), "", "", seconds)
    frames, xys, seen = [], [], []
    row_of = {int(identity): row for row, identity in enumerate(ids)}
    for view in views:
        frame = places.get(view.name, places.get(Path(view.name).name))
        if frame is None:
            raise InvalidValue(
                f"{folder}: has a picture {view.name}, not one of the frames ({names[0]} ...)."
            )
        if view.camera not in cameras:
            raise InvalidValue(f"{folder}: {view.name} uses camera {view.camera}, which is not there.")
        height, width, intrinsics, distortion = cameras[view.camera]
        result.registered[frame] = True
        result.camera_from_world[frame] = view.pose
        result.intrinsics[frame] = intrinsics
        result.distortion[frame] = distortion
        rows = np.array([row_of.get(int(point), -1) for point in view.points], np.int64)
        kept = rows >= 0
        frames.append(np.full(kept.sum(), frame, np.int32))
        xys.append(view.xy[kept] * (size[1] / width, size[0] / height))
        seen.append(rows[kept].astype(np.int32))
    joined = [np.concatenate(parts) if parts else None for parts in (frames, xys, seen)]
    known = np.isfinite(errors) & (errors >= 0)
    weights = lengths[known]
    error = float(np.average(errors[known], weights=weights)) if weights.sum() > 0 else float("nan")
    return SfmResult(
        SfmStatus.MODEL,
        result.registered,
        result.camera_from_world,
        result.intrinsics,
        result.distortion,
        points,
        joined[0] if frames else result.observation_frame,
        joined[1] if frames else result.observation_xy,
        joined[2] if frames else result.observation_point,
        mean_reprojection_error=error,
        model_sizes=(int(result.registered.sum()),),
        reason="" if len(points) else "no_points",
        message="" if len(points) else "the model has poses but no points: nothing supports them.",
        seconds=seconds,
    )


class _Bytes:
    """Little-endian fields of one file."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingFile(f"{path}: no such file; a binary COLMAP model needs it.")
        with file_failures(path, "read"):
            self.data = path.read_bytes()
        self.path, self.place = path, 0

    def take(self, layout: str) -> tuple:
        try:
            fields = struct.unpack_from("<" + layout, self.data, self.place)
        except struct.error as error:
            raise self.cut_short() from error
        self.place += struct.calcsize("<" + layout)
        return fields

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        size = dtype.itemsize * count
        if self.place + size > len(self.data):
            raise self.cut_short()
        array = np.frombuffer(self.data, dtype, count, self.place)
        self.place += size
        return array

    def text(self) -> str:
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise self.cut_short()
        text = self.data[self.place : end].decode("utf-8", errors="replace")
        self.place = end + 1
        return text

    def cut_short(self) -> InvalidValue:
        return InvalidValue(
            f"{self.path}: ends after {len(self.data)} bytes within a record: cut short, or not COLMAP's."
        )


def _cameras(path: Path) -> dict[int, tuple[int, int, np.ndarray, np.ndarray]]:
    """{id: (height, width, fractions [4], k1 k2 p1 p2 [4])}."""
    file, cameras = _Bytes(path), {}
    for _ in range(file.take("Q")[0]):
        identity, model, width, height = file.take("iiQQ")
        if model not in _MODELS:
            raise InvalidValue(f"{path}: camera model number {model} is not a pinhole with k1, k2, p1, p2.")
        count, places, distorted = _MODELS[model]
        values = np.array(file.take(f"{count}d"))
        distortion = np.zeros(4)
        distortion[: len(distorted)] = values[list(distorted)]
        cameras[identity] = (height, width, values[list(places)] / (width, height, width, height), distortion)
    return cameras


def _views(path: Path) -> list[_View]:
    file, views = _Bytes(path), []
    layout = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
    for _ in range(file.take("Q")[0]):
        fields = file.take("i7di")
        name = file.text()
        seen = file.array(layout, file.take("Q")[0])
        w, x, y, z = fields[1:5]
        pose = np.concatenate(
            [rotations.from_quaternions(np.array([[x, y, z, w]]))[0], np.array(fields[5:8])[:, None]], axis=1
        )
        views.append(_View(fields[8], name, pose, seen["xy"], seen["point"]))
    return sorted(
        views, key=lambda view: [int(p) if p.isdigit() else 0 for p in re.split(r"(\d+)", view.name)]
    )


def read_colours(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions f64 [P, 3] and colours u8 [P, 3] of the points of one model (``points3D.bin``)."""
    _, points, colours, _, _ = _points(folder / "points3D.bin")
    return points, colours


def _points(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(ids [P], positions [P, 3], colours u8 [P, 3], reprojection errors [P], track lengths [P]).

    Nothing of a missing file.
    """
    if not path.is_file():
        no_id = np.zeros(0, np.int64)
        return no_id, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), no_id
    file, rows = _Bytes(path), []
    for _ in range(file.take("Q")[0]):
        identity, x, y, z, red, green, blue, error, length = file.take("Q3d3BdQ")
        file.array(np.dtype("<i8"), length)  # (picture, place) as two i4 each: the pictures say the same
        rows.append((identity, x, y, z, red, green, blue, error, length))
    table = np.array(rows, np.float64).reshape(-1, 9)
    return (
        table[:, 0].astype(np.int64),
        table[:, 1:4].copy(),
        table[:, 4:7].astype(np.uint8),
        table[:, 7].copy(),
        table[:, 8].astype(np.int64),
    )
