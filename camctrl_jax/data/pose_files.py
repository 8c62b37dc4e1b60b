"""Which pose file is whose, and which pose belongs to which picture."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from camctrl_jax.camera.formats import PoseFileError, detect_format, existing_path
from camctrl_jax.camera.reading import Reading
from camctrl_jax.data.pairing import Pairing, pair_by_name, without_suffix
from camctrl_jax.data.shown_cameras import CameraReader, Geometry, SourceCameras
from camctrl_jax.data.sources import below, kind_of, pictures_of
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile
from camctrl_jax.video.decoding import SourceFrame, count_frames

POSES_OF = ("auto", "shown", "stored")
_COLMAP_PARTS = ("cameras", "images", "points3D", "frames", "rigs")


@dataclass(frozen=True)
class SourcePoses:
    """The poses of one source.

    Attributes:
        cameras: those of its pose file, for pictures as they are shown.
        pose_of: int64 [frames of the source], which pose a frame has; -1 where it has none.
        run_of: int64 [frames of the source], counts up where pictures are missing between two; -1 for frames
            without a pose.
    """

    cameras: SourceCameras
    pose_of: np.ndarray
    run_of: np.ndarray


def runs_between_gaps(pose_of: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Which run each picture is in, int64 [pictures], given the poses that they have by name, -1 for none.

    A pose whose number is between those of two pictures shows that one is missing there. Where every second
    or third picture was kept, this is no gap; half as much again as usual is.
    """
    posed = np.flatnonzero(pose_of >= 0)
    run_of = np.full(len(pose_of), -1, np.int64)
    if len(posed):
        own = pose_of[posed]
        steps = [1 + _numbered_between(names, one, other) for one, other in zip(own, own[1:])]
        usual = float(np.median(steps)) if steps else 1.0
        run_of[posed] = np.cumsum([0, *(step > 1.5 * usual for step in steps)])
    return run_of


def _numbered_between(names: Sequence[str], one: int, other: int) -> int:
    """How many names between two are theirs but for a number that is between theirs."""
    if other - one < 2:
        return 0

    def parts(name: str) -> tuple[list[str], list[int]]:
        pieces = re.split(r"(\d+)", without_suffix(name))
        return pieces[::2], [int(piece) for piece in pieces[1::2]]

    (text, low), (_, high) = parts(names[one]), parts(names[other])
    found = [parts(name) for name in names[one + 1 : other]]
    return sum(words == text and low < numbers < high for words, numbers in found)


class Poses:
    """Camera paths of sources.

    Args:
        path: one pose file (or folder that is one, such as a COLMAP model) for the only source or, if it
            names their pictures, for several folders of pictures; or a folder with a pose file named like
            each source.
        sources, root: what they belong to, and the folder in which that was found.
        metric: the translations are metres.
        reading: how files are read.
        poses_of: whether they belong to the pictures as "stored" or as "shown", after the turn and the
            mirroring that a file asks for; "auto" tells by the picture size in the pose file.
        option: what messages call ``path``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sources: Sequence[Path],
        root: Path,
        *,
        metric: bool = False,
        reading: Reading | None = None,
        poses_of: str = "auto",
        option: str = "--poses",
    ) -> None:
        self._option = option
        self.path, self.sources, self.root = Path(path), tuple(sources), root
        self._reader = CameraReader(reading or Reading(), poses_of, metric)
        self._used: set[Path] = set()
        self._taken: dict[Path, set[str]] = {}  # picture names of the poses that were used, by pose file
        self._named: dict[Path, tuple[str, ...]] = {}
        self._entries = cache(_by_stem_and_name)
        self._shared_pairing: Pairing | None = None
        if existing_path(self.path) is None:
            raise MissingFile(f"{option} {self.path}: no such file or folder.")
        if self.path.is_dir():
            return
        if len(self.sources) > 1 and any(kind_of(each) == "video" for each in self.sources):
            self._refuse_one_for_several()

    def _refuse_one_for_several(self) -> None:
        raise InvalidValue(
            f"{self._option} {self.path} is one file, but {self.root} holds {len(self.sources)} sources: "
            "name a folder with a pose file of the same name for each. (One file serves several folders of "
            "pictures if it names their pictures, as transforms.json, COLMAP and OpenSfM do.)"
        )

    def locate(self, source: Path) -> Path | None:
        """The pose file of a source, or None. Raises ClipError ``ambiguous_poses`` where several fit."""
        path = self.path
        if not path.is_dir():
            return path
        if self.root.is_dir() and source != self.root:
            place = below(source, self.root)
            entries = {
                each
                for folder in (path / place.parent, path)
                for name in (place.stem, place.name)
                for each in self._entries(folder).get(name, ())
            }
            matches = sorted(
                each for each in entries if not each.name.startswith(".") and not self._is_other(each)
            )
            if len(matches) > 1:
                names = ", ".join(str(match) for match in matches)
                raise ClipError("ambiguous_poses", f"{source}: several pose files fit: {names}; keep one.")
            if matches:
                return matches[0]
            alone = len(self.sources) == 1 or kind_of(source) != "video"
            return path if alone and self._is_pose_folder else None
        named = sorted(
            each for each in path.iterdir() if each.stem == source.stem and not self._is_other(each)
        )
        return named[0] if len(named) == 1 else path

    @cached_property
    def _is_pose_folder(self) -> bool:
        try:
            return bool(detect_format(self.path))
        except (PoseFileError, OSError):
            return False

    def _is_other(self, entry: Path) -> bool:
        """Whether an entry of the folder is no pose file of a source: a source itself, or part of a model."""
        if self._is_pose_folder and entry.stem in _COLMAP_PARTS and entry.suffix in (".bin", ".txt"):
            return True
        return entry.resolve() in self._holders

    @cached_property
    def _holders(self) -> frozenset[Path]:
        """The sources and the folders that they are in."""
        real = [source.resolve() for source in self.sources]
        return frozenset((*real, *(parent for source in real for parent in source.parents)))

    def find(
        self, source: Path, pictures: Sequence[Path], frame: SourceFrame, remarks: list[str]
    ) -> SourcePoses | None:
        """The validated cameras of a source and which of its frames they belong to; None without a pose file.

        Args:
            source: a video, folder of pictures or picture.
            pictures: its files; none of a video.
            frame: its first.
            remarks: takes what was assumed and what looks odd, now and for each kind of picture.

        Raises ClipError ``bad_pose`` for a file that cannot be used, ``ambiguous_poses`` for several of
        them or a picture that several poses fit, ``pose_names`` where no picture has a pose, ``no_pose``
        where a single one has none and others have, ``pose_count`` where poses without names are not as many
        as frames.
        """
        path = self.locate(source)
        if path is None:
            return None
        self._used.add(path)
        shown = self._reader.shown(path, Geometry.of(frame))
        shared = path == self.path and len(self.sources) > 1
        if shared and not shown.names:
            self._refuse_one_for_several()
        found = SourceCameras(source, path, self._reader, remarks)
        if shown.names and pictures:
            pose_of = self._by_name(path, source, pictures, shown.names, shared)
            self._named[path] = shown.names
            remarks += [f"{path}: {note}" for note in shown.notes]
            return SourcePoses(found, pose_of, runs_between_gaps(pose_of, shown.names))
        frames, poses = count_frames(source), len(shown.cameras)
        if poses != frames:
            raise ClipError(
                "pose_count",
                f"{source}: {frames} frames, but {poses} poses in {path}; one pose per frame of the "
                "source is needed.",
            )
        remarks += [f"{path}: {note}" for note in shown.notes]
        if shown.names:
            remarks.append(
                f"{source}: is a video, and {path} names pictures: its poses were taken one a frame, from "
                f"{shown.names[0]!r} to {shown.names[-1]!r}"
            )
        return SourcePoses(found, np.arange(frames), np.zeros(frames, np.int64))

    def _by_name(
        self, path: Path, source: Path, pictures: Sequence[Path], names: tuple[str, ...], shared: bool
    ) -> np.ndarray:
        """Which pose each picture of a source has, int64 [pictures]."""
        if not shared:
            pairing = pair_by_name(names, pictures)
        elif self._shared_pairing is None:
            every = [each for other in self.sources for each in pictures_of(other)]
            pairing = self._shared_pairing = pair_by_name(names, every)
        else:
            pairing = self._shared_pairing
        unclear = [pairing.unclear[picture] for picture in pictures if picture in pairing.unclear]
        if unclear:
            more = f" ({len(unclear)} pictures are unclear)" if len(unclear) > 1 else ""
            raise ClipError(
                "ambiguous_poses",
                f"{source}: {unclear[0]}{more}, pose file {path}; keep one of the two, or rename.",
            )
        pose_of = np.array([pairing.pose_of.get(picture, -1) for picture in pictures], np.int64)
        self._taken.setdefault(path, set()).update(names[pose] for pose in pose_of if pose >= 0)
        if (pose_of < 0).all():
            if len(pictures) == 1 and shared and pairing.pose_of:
                raise ClipError("no_pose", f"{source}: {path} has no pose of this name.")
            raise ClipError(
                "pose_names",
                f"{source}: none of its {len(pictures)} pictures has a pose in {path}: the pictures have "
                f"names like {pictures[0].name!r}, the {len(names)} poses like {names[0]!r}. Rename the "
                "pictures, or convert the file to a format without names, which pairs by position: python -m "
                "camctrl_jax.camera convert FILE NEW.txt",
            )
        return pose_of

    def without_picture(self) -> dict[str, list[str]]:
        """By pose file, the names of pictures that were not there for any source."""
        missing = {
            str(path): [name for name in names if name not in self._taken[path]]
            for path, names in self._named.items()
        }
        return {path: names for path, names in missing.items() if names}

    def unmatched(self) -> list[str]:
        """Pose files and folders that were never asked for: their video is missing, or has another name."""
        if not self.path.is_dir() or self.path in self._used:
            return []
        folders = {self.path, *(used.parent for used in self._used)}
        found = {each for folder in folders for each in folder.iterdir() if not each.name.startswith(".")}
        return sorted(str(each) for each in found - self._used - folders if not self._is_other(each))


def _by_stem_and_name(folder: Path) -> dict[str, set[Path]]:
    """The entries of a folder under their names with and without suffix; none where there is no folder."""
    entries: dict[str, set[Path]] = defaultdict(set)
    for entry in folder.iterdir() if folder.is_dir() else ():
        entries[entry.stem].add(entry)
        entries[entry.name].add(entry)
    return entries
