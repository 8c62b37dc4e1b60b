"""COLMAP sparse models, text and binary: ``cameras``, ``images`` and ``points3D``.

World-to-camera: a quaternion w x y z and a translation, OpenCV axes. Intrinsics are in pixels with pixel
centres at +0.5, as here. The path may name the folder with the files, one of the files, or a folder above
them: COLMAP's and pycolmap's ``sparse/0``, ``sparse`` and ``0``, VGGSfM's ``sparse``. Frames come in the
order of picture names ("9.jpg" before "10.jpg"), which tools rarely write; unregistered pictures are simply
not there. Lens distortion is reported and ignored; fisheye and spherical cameras are refused.
Write: PINHOLE cameras (one if all frames share it), no points, straight into the given folder.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.colmap_text import Image, images_of_text, integer, reads_like_pose
from camctrl_jax.camera.formats.posefile import (
    Format,
    PoseFile,
    Source,
    numbers,
    picture_names,
    required_size,
)
from camctrl_jax.camera.formats.tum import poses_from_quaternions
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels, intrinsics_in_pixels
from camctrl_jax.files.atomic import write_text, written_file

# Name: (id, number of parameters, index of fx, fy, cx, cy). What remains is distortion.
_MODELS = {
    "SIMPLE_PINHOLE": (0, 3, (0, 0, 1, 2)),
    "PINHOLE": (1, 4, (0, 1, 2, 3)),
    "SIMPLE_RADIAL": (2, 4, (0, 0, 1, 2)),
    "RADIAL": (3, 5, (0, 0, 1, 2)),
    "OPENCV": (4, 8, (0, 1, 2, 3)),
    "FULL_OPENCV": (6, 12, (0, 1, 2, 3)),
}
_MODEL_NAMES = {model[0]: name for name, model in _MODELS.items()}
_NO_PINHOLES = {
    5: "OPENCV_FISHEYE",
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
    11: "RAD_TAN_THIN_PRISM_FISHEYE",
}
_FILE_NAMES = ("cameras.bin", "images.bin", "cameras.txt", "images.txt")


class _Camera(NamedTuple):
    intrinsics: np.ndarray  # fractions [4]
    size: tuple[int, int]  # height, width
    distorted: bool


def model_folder(path: Path) -> Path | None:
    """The folder that holds the model's files, looked for where SfM tools put it; None when there is none."""
    if path.is_file():
        return path.parent if path.name in _FILE_NAMES else None
    for folder in (path, path / "sparse", path / "sparse" / "0", path / "0"):
        if any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
            return folder
    return None


def _matches(source: Source) -> bool:
    if model_folder(source.path) is None:
        return False
    if source.path.is_dir():
        return True
    if source.path.suffix == ".bin":
        return not source.is_text
    if source.json is not None or not source.rows:
        return False
    words = source.rows[0][1]
    if source.path.name == "images.txt":
        # A line of numbers alone may be of another format under this name.
        return len(words) >= 10 and (source.columns != len(words) or reads_like_pose(words))
    return len(words) >= 5 and words[1].isupper()


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    folder = model_folder(source.path)
    if folder is None:
        source.fail(
            "", "holds no COLMAP model (cameras and images as .bin or .txt, here or in sparse/0, sparse, 0)"
        )
    suffix = source.path.suffix if source.path.is_file() else ""
    if not suffix:
        suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    cameras_source, images_source = (
        dataclasses.replace(source, path=folder / f"{part}{suffix}") for part in ("cameras", "images")
    )
    for part in (cameras_source, images_source):
        if not part.path.is_file():
            source.fail(
                "", f"has no {part.path.name}; a COLMAP model needs cameras{suffix} and images{suffix}"
            )
    notes: tuple[str, ...] = ()
    if suffix == ".bin":
        cameras, images = _cameras_binary(cameras_source), _images_binary(images_source)
    else:
        cameras = _cameras_text(cameras_source)
        images, notes = images_of_text(images_source)
    if not images:
        images_source.fail("", "holds no registered images")
    for image in images:
        if image.camera not in cameras:
            images_source.fail(
                image.location, f"{image.name} uses camera {image.camera}, which {cameras_source.path} lacks"
            )
    locations = [f"{image.location} ({image.name})" for image in images]
    wxyz = np.array([image.quaternion for image in images])
    translations = np.array([image.translation for image in images])
    camera_from_world = poses_from_quaternions(images_source, translations, wxyz, locations, TEXT.quaternions)
    used = [cameras[image.camera] for image in images]
    if any(camera.distorted for camera in used):
        notes += ("lens distortion is ignored; undistort the pictures for exact rays",)
    sizes = {camera.size for camera in used}
    return PoseFile(
        Cameras(np.linalg.inv(camera_from_world), np.stack([camera.intrinsics for camera in used])),
        locations,
        image_size=sizes.pop() if len(sizes) == 1 else image_size,
        names=tuple(image.name for image in images),
        notes=notes,
    )


def _camera(
    source: Source, where: str, model: str, width: int, height: int, parameters: Sequence[float]
) -> _Camera:
    if model not in _MODELS:
        source.fail(
            where, f"camera model {model} is not a pinhole; known are {', '.join(_MODELS)}. Undistort first"
        )
    count, index = _MODELS[model][1:]
    if len(parameters) != count:
        source.fail(where, f"{model} has {count} parameters, found {len(parameters)}")
    if width <= 0 or height <= 0:
        source.fail(where, f"the picture size {width} x {height} is not positive")
    values = np.array(parameters, dtype=np.float64)
    rest = np.delete(values, list(set(index)))
    return _Camera(
        intrinsics_from_pixels(values[list(index)], height, width), (height, width), bool(rest.any())
    )


def _cameras_text(source: Source) -> dict[int, _Camera]:
    cameras = {}
    for line, words in source.rows:
        where = f"line {line}"
        if len(words) < 5:
            source.fail(where, f"holds {len(words)} values, expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS...")
        identity, width, height = (integer(source, line, word) for word in (words[0], words[2], words[3]))
        parameters = source.numbers(line, words[4:], len(words) - 4, "camera parameters")
        cameras[identity] = _camera(source, where, words[1], width, height, parameters)
    return cameras


class _Reader:
    """Little-endian fields of one binary file, with errors that say where it breaks off."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.data = source.path.read_bytes()
        self.place = 0

    def take(self, layout: str) -> tuple:
        try:
            fields = struct.unpack_from("<" + layout, self.data, self.place)
        except struct.error:
            self.truncated()
        self.place += struct.calcsize("<" + layout)
        return fields

    def name(self) -> str:
        end = self.data.find(b"\0", self.place)
        if end < 0:
            self.truncated()
        name = self.data[self.place : end].decode("utf-8", errors="replace")
        self.place = end + 1
        return name

    def skip(self, size: int) -> None:
        if self.place + size > len(self.data):
            self.truncated()
        self.place += size

    def truncated(self) -> None:
        self.source.fail(
            f"byte {self.place}",
            f"the file ends after {len(self.data)} bytes; it is cut short or not COLMAP's",
        )


def _cameras_binary(source: Source) -> dict[int, _Camera]:
    reader = _Reader(source)
    cameras = {}
    for _ in range(reader.take("Q")[0]):
        where = f"byte {reader.place}"
        identity, model, width, height = reader.take("iiQQ")
        if model not in _MODEL_NAMES:
            found = _NO_PINHOLES.get(model, f"number {model}")
            source.fail(
                where,
                f"camera model {found} is not a pinhole; known are {', '.join(_MODELS)}. Undistort first",
            )
        name = _MODEL_NAMES[model]
        cameras[identity] = _camera(source, where, name, width, height, reader.take(f"{_MODELS[name][1]}d"))
    return cameras


def _images_binary(source: Source) -> list[Image]:
    reader = _Reader(source)
    images = []
    for index in range(reader.take("Q")[0]):
        fields = reader.take("i7di")
        name = reader.name()
        reader.skip(reader.take("Q")[0] * struct.calcsize("<ddq"))
        images.append(Image(fields[1:5], fields[5:8], fields[8], name, f"image {index}"))
    return images


class _Model(NamedTuple):
    """What both writers write: cameras as (id, height, width, pixels) and one camera id per image."""

    cameras: list[tuple[int, int, int, np.ndarray]]
    camera_of_image: list[int]
    quaternions: np.ndarray  # w x y z
    translations: np.ndarray
    names: list[str]


def _model(cameras: Cameras, image_size: tuple[int, int] | None, names: Sequence[str]) -> _Model:
    height, width = required_size(image_size, "COLMAP")
    pixels = intrinsics_in_pixels(cameras.intrinsics, height, width)
    shared = bool((pixels == pixels[0]).all())
    rows = pixels[:1] if shared else pixels
    return _Model(
        [(index, height, width, row) for index, row in enumerate(rows, start=1)],
        [1] * len(pixels) if shared else list(range(1, len(pixels) + 1)),
        rotations.to_quaternions(cameras.camera_from_world[:, :3, :3])[:, [3, 0, 1, 2]],
        cameras.camera_from_world[:, :3, 3],
        picture_names(names, len(cameras)),
    )


def _write_text(
    cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]
) -> None:
    model = _model(cameras, image_size, names)
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"]
    lines += [
        f"{identity} PINHOLE {width} {height} {numbers(row)}"
        for identity, height, width, row in model.cameras
    ]
    write_text(path / "cameras.txt", "\n".join(lines) + "\n")
    write_text(path / "points3D.txt", "# POINT3D_ID X Y Z R G B ERROR TRACK[]\n")
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", "# POINTS2D[] as X Y POINT3D_ID"]
    images = zip(model.quaternions, model.translations, model.camera_of_image, model.names)
    for index, (quaternion, translation, camera, name) in enumerate(images, start=1):
        lines += [f"{index} {numbers(quaternion)} {numbers(translation)} {camera} {name}", ""]
    write_text(path / "images.txt", "\n".join(lines) + "\n")


def _write_binary(
    cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]
) -> None:
    model = _model(cameras, image_size, names)
    content = struct.pack("<Q", len(model.cameras))
    for identity, height, width, row in model.cameras:
        content += struct.pack("<iiQQ4d", identity, _MODELS["PINHOLE"][0], width, height, *row)
    with written_file(path / "cameras.bin") as file:
        file.write(content)
    with written_file(path / "points3D.bin") as file:
        file.write(struct.pack("<Q", 0))
    content = struct.pack("<Q", len(model.names))
    images = zip(model.quaternions, model.translations, model.camera_of_image, model.names)
    for index, (quaternion, translation, camera, name) in enumerate(images, start=1):
        content += struct.pack("<i7di", index, *quaternion, *translation, camera)
        content += name.encode("utf-8") + b"\0" + struct.pack("<Q", 0)
    with written_file(path / "images.bin") as file:
        file.write(content)


_CONVENTION = (
    "world-to-camera quaternion w x y z and translation, OpenCV axes; intrinsics in pixels; no times"
)

BINARY = Format(
    "colmap",
    "COLMAP sparse model folder, binary (VGGSfM, pycolmap)",
    _CONVENTION,
    frozenset({"intrinsics"}),
    _matches,
    _read,
    _write_binary,
    stores="w2c",
    quaternions="wxyz",
)
TEXT = Format(
    "colmap_text",
    "COLMAP sparse model folder, text",
    _CONVENTION,
    frozenset({"intrinsics"}),
    _matches,
    _read,
    _write_text,
    stores="w2c",
    quaternions="wxyz",
)
