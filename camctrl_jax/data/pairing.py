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


def _in_common(name: _Name, places: tuple[_Name, ...]) -> int:
    """How many folders above a file agree, from the last one up."""
    most = 0
    for place in places:
        count = 0
        for one, other in zip(name.folders, place.folders):
            if one != other:
                break
            count += 1
        most = max(most, count)
    return most


class _Shared:
    """How many folders the names and the pictures of one folder have in common at most.

    Where ``left/0001.png`` meets its own name, ``right/0002.png`` is no name for ``left/0002.png``.
    """

    def __init__(self, named: Sequence[_Name], places: dict[Path, tuple[_Name, ...]]) -> None:
        by_file = defaultdict(list)
        for name in named:
            by_file[without_suffix(name.file.casefold())].append(name)
        self.most: dict[Path, int] = defaultdict(int)
        for picture, place in places.items():
            for name in by_file[without_suffix(place[0].file.casefold())]:
                self.most[picture.parent] = max(self.most[picture.parent], _in_common(name, place))

    def allows(self, picture: Path, name: _Name, common: int) -> bool:
        return common >= min(self.most[picture.parent], len(name.folders))


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
        common = {
            (picture, pose): count
            for picture in pictures
            for pose in poses
            if shared.allows(picture, named[pose], count := _in_common(named[pose], places[picture]))
        }
        best_of = {
            picture: _best([(count, pose) for (each, pose), count in common.items() if each == picture])
            for picture in pictures
        }
        claimed = {
            pose: _best([(count, picture) for (picture, each), count in common.items() if each == pose])
            for pose in poses
        }
        for picture in pictures:
            best = [pose for pose in best_of[picture] if picture in claimed[pose]]
            if not best:
                continue
            rivals = sorted({other for pose in best for other in claimed[pose]})
            clear = len(best) == 1 and len(rivals) == 1
            found.append((picture, best[0] if clear else (best, rivals)))
    return found


def _best(candidates: list[tuple[int, object]]) -> list:
    """All that have the highest count."""
    most = max((count for count, _ in candidates), default=0)
    return [candidate for count, candidate in candidates if count == most]


def _sentence(picture: Path, choice: tuple[list[int], list[Path]], names: Sequence[str]) -> str:
    poses, pictures = choice
    if len(poses) > 1:
        listed = " and ".join(repr(names[pose]) for pose in poses[:2])
        return f"{picture}: the poses of {listed} both fit it by name"
    listed = " and ".join(str(each) for each in pictures[:2])
    return f"the pose of {names[poses[0]]!r} fits both {listed} by name"
