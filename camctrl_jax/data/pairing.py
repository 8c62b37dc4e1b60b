"""Which picture a pose belongs to, by the names that a pose file gives its pictures.

Names come from other machines and other steps of a pipeline: with folders (``images/left/0001.png``) or
without, relative or absolute, with another suffix (COLMAP ran on ``.png``, the pictures are ``.jpg``), with
none (NeRF), with backslashes (Windows), or with letters taken apart (macOS). What is compared is the file
name, and the folders above it part by part from the end, where they tell pictures of the same name apart.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from camctrl_jax.video.decoding import IMAGE_SUFFIXES

# What a tool may have read before the pictures were converted to what is here.
_PICTURE_SUFFIXES = frozenset(
    (
        *IMAGE_SUFFIXES,
        *(".heic", ".heif", ".avif", ".jxl", ".exr", ".hdr", ".ppm", ".pgm", ".tga", ".dng", ".raw", ".gif"),
        *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".jp2"),
    )
)


@dataclass(frozen=True)
class Pairing:
    """Poses of pictures.

    Attributes:
        pose_of: number of the pose of each picture that has one.
        unclear: what is wrong with pictures for which several poses fit, or whose pose fits several.
    """

    pose_of: dict[Path, int]
    unclear: dict[Path, str]


@dataclass(frozen=True)
class _Name:
    folders: tuple[str, ...]  # from the last one up
    file: str


def pair_by_name(names: Sequence[str], pictures: Sequence[Path]) -> Pairing:
    """Find the pose of every picture.

    A name that is the same letter by letter goes before one that differs in capitals, and that before one
    that differs in its suffix. Of several pictures or names that are alike those go together that have most
    folders in common, each with the other; none is taken twice.

    Args:
        names: of the pictures, one per pose, as the pose file gives them.
        pictures: of one folder or several.
    """
    named = [_parts(name.replace("\\", "/")) for name in names]
    places = {picture: _places(picture) for picture in pictures}
    shared = _Shared(named, places)
    free_poses, free_pictures = set(range(len(names))), set(pictures)
    pose_of: dict[Path, int] = {}
    unclear: dict[Path, str] = {}
    for likeness in _LIKENESSES:
        for picture, pose in _pairs(likeness, named, places, free_poses, free_pictures, shared):
            if isinstance(pose, int):
                pose_of[picture] = pose
            else:
                unclear[picture] = _sentence(picture, pose, names)
        free_poses -= set(pose_of.values())
        free_pictures -= pose_of.keys() | unclear.keys()
    return Pairing(pose_of, unclear)


def _parts(name: str) -> _Name:
    # macOS stores an umlaut as two characters; both spellings are the same name.
    pieces = [
        piece for piece in unicodedata.normalize("NFC", name).split("/") if piece not in ("", ".", "..")
    ]
    return _Name(tuple(piece.casefold() for piece in pieces[-2::-1]), pieces[-1] if pieces else "")


def _places(picture: Path) -> tuple[_Name, ...]:
    """A picture as it was named and, behind links, where it is."""
    given, real = Path(os.path.abspath(picture)), picture.resolve()
    named = _parts(given.as_posix())
    return (named, _Name(_parts(real.as_posix()).folders, named.file))


def without_suffix(file: str) -> str:
    """A file name without the suffix of a picture, if it has one."""
    stem, dot, suffix = file.rpartition(".")
    return stem if dot and stem and f".{suffix}".casefold() in _PICTURE_SUFFIXES else file


# How alike two file names have to be, strictest first: (key of the pose file's name, key of the picture's).
_LIKENESSES: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (str, str),
    (str.casefold, str.casefold),
    (str, without_suffix),
    (lambda file: without_suffix(file.casefold()), lambda file: without_suffix(file.casefold())),
    (str.casefold, lambda file: without_suffix(file.casefold())),
)


def _starts(places: tuple[_Name, ...], count: int) -> set[tuple[str, ...]]:
    """The last ``count`` folders of each place that has so many."""
    return {place.folders[:count] for place in places if len(place.folders) >= count}


class _Shared:
    """How many folders the names and the pictures of one folder have in common at most.

    Where ``left/0001.png`` meets its own name, ``right/0002.png`` is no name for ``left/0002.png``.
    """

    def __init__(self, named: Sequence[_Name], places: dict[Path, tuple[_Name, ...]]) -> None:
        starts = defaultdict(set)
        for name in named:
            file = without_suffix(name.file.casefold())
            starts[file].update(name.folders[:count] for count in range(len(name.folders) + 1))
        self._most: dict[Path, int] = defaultdict(int)
        for picture, place in places.items():
            known = starts[without_suffix(place[0].file.casefold())]
            count = self._most[picture.parent]
            while any(start in known for start in _starts(place, count + 1)):
                count += 1
            self._most[picture.parent] = count

    def allows(self, picture: Path, name: _Name, common: int) -> bool:
        return common >= min(self._most[picture.parent], len(name.folders))


class _Nearest:
    """Among poses and pictures of one file name, those that have most folders in common.

    They stand under the last folders that they have, from none to all: thousands of folders may hold a file
    of the same name, and not every one is compared with every other. What is not allowed with the folders
    that a pose and a picture have in common is not allowed with fewer of them.
    """

    def __init__(
        self,
        poses: Sequence[int],
        pictures: Sequence[Path],
        named: Sequence[_Name],
        places: dict[Path, tuple[_Name, ...]],
        shared: _Shared,
    ) -> None:
        self._named, self._places, self._shared = named, places, shared
        self._depth = max((len(named[pose].folders) for pose in poses), default=0)
        self._poses: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._pictures: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for pose in poses:
            folders = named[pose].folders
            for count in range(len(folders) + 1):
                self._poses[folders[:count]].append(pose)
        for picture in pictures:
            for count in range(self._depth + 1):
                for start in _starts(places[picture], count):
                    self._pictures[start].append(picture)
        self.pictures = cache(self._pictures_of)

    def poses(self, picture: Path) -> list[int]:
        for count in range(self._depth, -1, -1):
            starts = _starts(self._places[picture], count)
            at = (pose for start in starts for pose in self._poses.get(start, ()))
            near = [pose for pose in at if self._shared.allows(picture, self._named[pose], count)]
            if near:
                return sorted(near)
        return []

    def _pictures_of(self, pose: int) -> frozenset[Path]:
        name = self._named[pose]
        for count in range(len(name.folders), -1, -1):
            at = self._pictures.get(name.folders[:count], ())
            near = frozenset(picture for picture in at if self._shared.allows(picture, name, count))
            if near:
                return near
        return frozenset()


def _pairs(
    likeness: tuple[Callable[[str], str], Callable[[str], str]],
    named: Sequence[_Name],
    places: dict[Path, tuple[_Name, ...]],
    free_poses: set[int],
    free_pictures: set[Path],
    shared: _Shared,
) -> list[tuple[Path, int | tuple[list[int], list[Path]]]]:
    """Pictures with their pose, or with the poses and pictures between which there is no choice."""
    key_of_name, key_of_picture = likeness
    alike: dict[str, tuple[list[int], list[Path]]] = defaultdict(lambda: ([], []))
    for pose in sorted(free_poses):
        alike[key_of_name(named[pose].file)][0].append(pose)
    for picture in sorted(free_pictures):
        alike[key_of_picture(places[picture][0].file)][1].append(picture)
    found: list[tuple[Path, int | tuple[list[int], list[Path]]]] = []
    for poses, pictures in alike.values():
        if not poses:
            continue
        nearest = _Nearest(poses, pictures, named, places, shared)
        for picture in pictures:
            best = [pose for pose in nearest.poses(picture) if picture in nearest.pictures(pose)]
            if len(best) > 1:
                found.append((picture, (best, [])))
            elif best:
                rivals = nearest.pictures(best[0])
                found.append((picture, best[0] if len(rivals) == 1 else (best, sorted(rivals))))
    return found


def _sentence(picture: Path, choice: tuple[list[int], list[Path]], names: Sequence[str]) -> str:
    poses, pictures = choice
    if len(poses) > 1:
        listed = " and ".join(repr(names[pose]) for pose in poses[:2])
        return f"{picture}: the poses of {listed} both fit it by name"
    listed = " and ".join(str(each) for each in pictures[:2])
    return f"the pose of {names[poses[0]]!r} fits both {listed} by name"
