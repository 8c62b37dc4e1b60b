"""Cameras of pictures as they are shown, from a pose file that may be about the pictures as they are stored.

A stored picture is turned and mirrored to be shown, and its pixels are made square. What tools that estimate
cameras see of this differs: most read the stored pixels, and many heed the turn.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import detect_format
from camctrl_jax.camera.orientation import Orientation, told_by_size
from camctrl_jax.camera.reading import Reading, ReadPath, read_path
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import SourceFrame


class Geometry(NamedTuple):
    """How a stored picture becomes the shown one.

    Attributes:
        stored, shown: (height, width) in pixels.
        orientation: its turn and mirroring.
    """

    stored: tuple[int, int]
    shown: tuple[int, int]
    orientation: Orientation

    @staticmethod
    def of(frame: SourceFrame) -> Geometry:
        """That of a decoded picture."""
        return Geometry(frame.stored_size, frame.size, frame.orientation)


@dataclass(frozen=True)
class ShownCameras:
    """A pose file for pictures of one geometry.

    Attributes:
        cameras: of the pictures as they are shown, in the order of the pose file.
        names: of its pictures, or empty.
        notes: on the file.
        remarks: what was assumed about the pictures, as sentences about them.
        mirrored: whether the cameras were mirrored with the pictures, and their world with them.
    """

    cameras: Cameras
    names: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    mirrored: bool


class CameraReader:
    """Reads pose files, the same one not again for every source.

    Args:
        reading: how files are read.
        poses_of: whether they belong to the pictures as "stored" or as "shown"; "auto" tells by the picture
            size in the file.
        metric: the translations are metres.
    """

    def __init__(self, reading: Reading, poses_of: str, metric: bool) -> None:
        self._reading, self._poses_of, self._metric = reading, poses_of, metric
        self._read = lru_cache(maxsize=8)(read_path)  # one file may serve many sources
        self._detect = lru_cache(maxsize=4)(detect_format)
        self._kept = lru_cache(maxsize=8)(self._shown)

    def shown(self, path: Path, geometry: Geometry) -> ShownCameras:
        """A pose file for pictures of a geometry. Raises ClipError ``bad_pose`` if it cannot be used."""
        try:
            return self._kept(path, geometry)
        except (ValueError, OSError) as error:
            raise ClipError("bad_pose", str(error)) from error

    def _shown(self, path: Path, geometry: Geometry) -> ShownCameras:
        read, orientation, remarks = self._for(path, geometry)
        cameras = orientation.cameras(read.pose_file.cameras)
        if self._metric:
            cameras = dataclasses.replace(cameras, metric=True)
        return ShownCameras(
            cameras, read.pose_file.names, tuple(read.remarks), tuple(remarks), orientation.mirrored
        )

    def _for(self, path: Path, geometry: Geometry) -> tuple[ReadPath, Orientation, list[str]]:
        """The file as read, what is to be done to its cameras, and remarks."""
        stored, shown, orientation = geometry
        as_they_are = Orientation()
        if self._poses_of == "stored":
            return self._sized(path, stored), orientation, []
        if self._poses_of == "shown" or (orientation == as_they_are and stored == shown):
            return self._sized(path, shown), as_they_are, []
        turned = orientation.size(stored)  # as shown, but with the pixels that are stored
        remarks = []
        if orientation != as_they_are:
            told = self._told(path, stored, turned)
            belongs = told_by_size(told, stored, turned)
            way = "turned" if turned != stored else "turned or mirrored"
            if belongs == "stored":
                remark = (
                    f"its pictures are {way} to be shown; the poses belong to them before that, by their "
                    f"size of {told[0]}x{told[1]}, and were turned alike (--poses-of shown takes them as "
                    "they are)"
                )
                return self._sized(path, stored), orientation, [remark]
            if belongs == "unknown":
                remarks.append(
                    f"its pictures are {way} to be shown, and the pose file does not tell whether its poses "
                    "belong to them before or after: after was assumed (--poses-of stored for before)"
                )
        read, other = self._sized(path, turned), self._sized(path, shown)
        if not np.allclose(read.pose_file.cameras.intrinsics, other.pose_file.cameras.intrinsics):
            remarks.append(
                "its pixels are not square, and the pose file does not tell its picture size: it was taken "
                f"to be about pixels as stored, {turned[0]}x{turned[1]}, not as shown, {shown[0]}x{shown[1]}"
                " (--poses-of shown, or --image-size)"
            )
        return read, as_they_are, remarks

    def _told(self, path: Path, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int] | None:
        """The (height, width) that a file says; None where it repeats what it was given."""
        told = self._sized(path, one).pose_file.image_size
        if one == other or told == self._sized(path, other).pose_file.image_size:
            return told
        return None

    def _sized(self, path: Path, size: tuple[int, int]) -> ReadPath:
        """A pose file whose pixels, if it does not say of what size, are those of ``size``."""
        if self._reading.image_size is None and not self._holds_fractions(path):
            return self._read(path, dataclasses.replace(self._reading, image_size=size))
        return self._read(path, self._reading)

    def _holds_fractions(self, path: Path) -> bool:
        """Pixels where fractions are expected are refused: their picture may have had another size."""
        return (self._reading.format or self._detect(path).name) == "realestate10k"


class SourceCameras:
    """The cameras of one source, picture by picture: those of a folder may be turned in different ways.

    Args:
        source: named in messages.
        path: its pose file.
        reader: reads it.
        remarks: takes what is to be said, once for each kind of picture.
    """

    def __init__(self, source: Path, path: Path, reader: CameraReader, remarks: list[str]) -> None:
        self._source, self._path, self._reader, self._remarks = source, path, reader, remarks
        self._known: dict[Geometry, ShownCameras] = {}

    def camera(self, frame: SourceFrame, pose: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Of a picture with a pose of the file: world-from-camera [4, 4], intrinsics [4], whether in metres.

        Raises ClipError ``mixed_orientations`` where only some pictures are mirrored and their cameras with
        them: these would be in two worlds.
        """
        geometry = Geometry.of(frame)
        shown = self._known.get(geometry)
        if shown is None:
            shown = self._reader.shown(self._path, geometry)
            if any(other.mirrored != shown.mirrored for other in self._known.values()):
                raise ClipError(
                    "mixed_orientations",
                    f"{self._source}: some pictures are mirrored to be shown and others are not, from frame "
                    f"{frame.index} on, and the poses belong to them before that; mirror the pictures "
                    "themselves, or give poses of the shown ones.",
                )
            self._known[geometry] = shown
            self._remarks += [f"{self._source}: {remark}" for remark in shown.remarks]
        cameras = shown.cameras
        return cameras.world_from_camera[pose], cameras.intrinsics[pose], cameras.metric
