"""Pose files: which format a file has, reading it, writing it.

Each format has a module in this folder, which states its convention and where that was established. A format
is recognised by what the file holds, never by its name; of a file that no reader knows, :mod:`unknown
<camctrl_jax.camera.formats.unknown>` says what it is. Readers return poses in the axes of the file;
:func:`read_pose_file` brings them into the conventions of :mod:`camctrl_jax.camera.cameras`, in the order of
the picture names, and applies what a user says of a file that departs from its format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import (
    ac3d,
    camera_path,
    colmap,
    gsplat,
    kitti,
    lingbot,
    motionctrl,
    mvsnet,
    open3d,
    opensfm,
    realestate10k,
    recammaster,
    tartanair,
    transforms_json,
    tum,
    worldplay,
)
from camctrl_jax.camera.formats.axes import check_convention, in_opencv_axes
from camctrl_jax.camera.formats.names import by_name
from camctrl_jax.camera.formats.posefile import (
    AS_THE_FORMAT_SAYS,
    Convention,
    Format,
    PoseFile,
    PoseFileError,
    Source,
)
from camctrl_jax.camera.formats.unknown import what_it_is
from camctrl_jax.errors import InvalidValue, MissingFile

__all__ = [
    "AS_THE_FORMAT_SAYS",
    "FORMATS",
    "Convention",
    "Format",
    "PoseFile",
    "PoseFileError",
    "detect_format",
    "existing_path",
    "load_cameras",
    "read_pose_file",
    "save_cameras",
]

FORMATS: tuple[Format, ...] = (
    realestate10k.FORMAT,
    tum.FORMAT,
    tartanair.FORMAT,
    transforms_json.FORMAT,
    camera_path.FORMAT,
    colmap.BINARY,
    colmap.TEXT,
    kitti.FORMAT,  # after COLMAP, whose lists of points may have twelve numbers a line
    motionctrl.FORMAT,
    lingbot.FORMAT,
    recammaster.FORMAT,
    open3d.LOG,
    open3d.JSON,
    opensfm.FORMAT,
    gsplat.FORMAT,
    worldplay.FORMAT,
    ac3d.FORMAT,
    mvsnet.FORMAT,  # after the folders of other formats
)
"""All formats, in the order in which a file is tried. A format whose ``write`` is None is only read."""


def format_named(name: str) -> Format:
    """The format that ``format=`` names."""
    for pose_format in FORMATS:
        if pose_format.name == name:
            return pose_format
    raise InvalidValue(
        f"unknown pose format {name!r}; known are {', '.join(known.name for known in FORMATS)}"
    )


def existing_path(path: str | Path) -> Path | None:
    """The file or folder that ``path`` names, without a ``#camera`` behind it; None when nothing is there."""
    for candidate in (str(path), str(path).rpartition("#")[0]):
        try:
            if candidate and Path(candidate).exists():
                return Path(candidate)
        except OSError:  # a long sentence is no file name
            return None
    return None


def _source(path: str | Path, convention: Convention = AS_THE_FORMAT_SAYS) -> Source:
    found = existing_path(path)
    if found is None:
        raise MissingFile(f"{path}: no such file or folder")
    whole = str(path)
    return Source(found, "" if Path(whole).exists() else whole.rpartition("#")[2], convention)


def detect_format(path: str | Path) -> Format:
    """The format of a file or folder, judged by its content.

    Raises:
        PoseFileError: when it looks like none of them, with what it was compared to.
    """
    return _detected(_source(path))


def _detected(source: Source) -> Format:
    if not source.path.is_dir() and not source.head:
        source.fail("", "is empty; expected a camera path")
    for pose_format in FORMATS:
        if pose_format.matches(source):
            if pose_format is colmap.BINARY and _holds_text_model(source.path):
                return colmap.TEXT
            return pose_format
    known = "\n".join(f"  {known.name}: {known.summary}" for known in FORMATS)
    found, nearest = what_it_is(source)
    source.fail(
        "",
        f"is not a pose file of a known format: it is {found}. {nearest + '. ' if nearest else ''}Known "
        f"formats:\n{known}",
    )


def _holds_text_model(path: Path) -> bool:
    folder = colmap.model_folder(path)
    if path.is_file():
        return path.suffix == ".txt"
    return folder is not None and not (folder / "images.bin").is_file()


def read_pose_file(
    path: str | Path,
    *,
    format: str | None = None,
    image_size: tuple[int, int] | None = None,
    convention: Convention = AS_THE_FORMAT_SAYS,
) -> tuple[Format, PoseFile]:
    """A pose file with everything it says, checked. See :func:`load_cameras`."""
    source = _source(path, convention)
    pose_format = _detected(source) if format is None else format_named(format)
    if format is not None and not pose_format.matches(source):
        source.fail(
            "",
            f"does not look like {pose_format.name} ({pose_format.summary}); leave --from (format= in "
            "Python) out to detect what it is",
        )
    check_convention(convention, pose_format)
    pose_file = by_name(pose_format.read(source, image_size), source)
    pose_file = _right_handed(in_opencv_axes(pose_file, pose_format, source))
    pose_file.cameras.validate(str(source.path), pose_file.locations)
    return pose_format, pose_file


def _right_handed(pose_file: PoseFile) -> PoseFile:
    """Turn a left-handed world over, so that rotations are rotations; relative poses stay what they were.

    Some published presets (CamI2V's look, orbit and rotate) have determinant -1 in every frame: their world
    is a mirror image. Only a path whose frames all agree is converted; validation refuses the others.
    """
    cameras = pose_file.cameras
    with np.errstate(invalid="ignore"):  # of NaN poses, which validation reports
        determinant = np.linalg.det(cameras.rotations)
    if not (len(cameras) and (determinant < 0).all()):
        return pose_file
    if (rotations.deviation(cameras.rotations) > 0.1).any():
        return pose_file  # not rotations at all: validation says so
    return dataclasses.replace(
        pose_file,
        cameras=cameras.transformed(np.diag([-1.0, 1.0, 1.0, 1.0])),
        notes=(
            *pose_file.notes,
            "every rotation has determinant -1: the file's world is left-handed. Its x axis was turned "
            "round; poses relative to one another are those of the file",
        ),
    )


def load_cameras(
    path: str | Path,
    *,
    format: str | None = None,
    image_size: tuple[int, int] | None = None,
    convention: Convention = AS_THE_FORMAT_SAYS,
) -> Cameras:
    """Read a camera path.

    Args:
        path: a file or folder; ``file.json#cam05`` picks one camera of a file that holds several.
        format: name of the format; None detects it by content.
        image_size: (height, width) of the pictures, for files with pixel intrinsics that do not say it.
        convention: where the file departs from what its format says: inverse matrices, other camera axes,
            quaternions in the other order.

    Returns:
        A checked path in OpenCV axes. Formats without intrinsics give
        :data:`camctrl_jax.camera.intrinsics.DEFAULT_INTRINSICS`.

    Raises:
        FileNotFoundError: when nothing is there.
        CameraError: naming the file, the line or frame, the value, what was expected and the remedy.
        InvalidValue: for a convention that no file of the format can have.
    """
    return read_pose_file(path, format=format, image_size=image_size, convention=convention)[1].cameras


def save_cameras(
    cameras: Cameras,
    path: str | Path,
    format: str = "realestate10k",
    *,
    image_size: tuple[int, int] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write a camera path; the file appears under its name only when it is complete.

    Args:
        cameras: checked before anything is written.
        path: a file; a folder for ``colmap``, ``colmap_text`` and ``lingbot``.
        format: name of a format that is not only read. What a format cannot hold (times, intrinsics, the
            metric flag) is lost.
        image_size: (height, width) in pixels, needed by formats that store pixels.
        names: picture names, one per frame, for formats that store them; frame_00000.png and so on otherwise.
    """
    pose_format = format_named(format)
    if pose_format.write is None:
        writable = ", ".join(known.name for known in FORMATS if known.write is not None)
        raise InvalidValue(f"files of the format {format} are only read; write one of {writable}")
    cameras.validate(f"path to be written to {path}")
    pose_format.write(cameras, Path(path), image_size, names)
