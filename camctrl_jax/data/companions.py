"""Folders of pictures that accompany another one: copies at reduced size, masks, depth.

Capture tools write them beside the pictures (``images_2``, ``masks``, ``depth``). As clips they would show a
scene twice, or no scene. A name alone is no evidence: what the folder holds has to agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from camctrl_jax.data.pairing import without_suffix
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import SourceFrame, read_frames

# Where tools put the pictures themselves, the likeliest first.
_MAIN = ("images", "image", "rgb", "color", "colour", "frames", "input", "imgs", "img", "jpegimages")
# Words in names, that tell what to look for in what a folder holds.
_SMALL = r"small|low(?:res)?|lores|res|thumb(?:nail)?s?|previews?|resized|half|quarter|downs(?:ampl|cal)ed|x"
_UNDISTORTED = r"corrected|undistorted|rectified|dense"
_DRAWN = (
    r"masks?|mattes?|alphas?|silhouettes?|segmentations?|segments?|segs?|semantics?|instances?|panoptic"
    r"|annotations?|labels?|depths?|depthmaps?|disparit(?:y|ies)|disp|normals?|(?:un)?certainty"
    r"|confidences?|conf|flows?|error"
)
_DRAWN_MORE = r"dynamic|sky|object|human|fg|maps?|vis"
_DRAWN_NAME = rf"(?:(?:{_DRAWN}|{_DRAWN_MORE})_?)*(?:{_DRAWN})(?:_?maps?)?"
_MARKED = re.compile(
    rf"{_DRAWN_NAME}[_.-](?P<end>.+)|(?P<start>.+?)[_.-]{_DRAWN_NAME}(?:[_.-]\d+)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Folder:
    """A folder with pictures of its own, in their order."""

    path: Path
    pictures: tuple[Path, ...]


def companions(folders: Sequence[Folder], root: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Folders of pictures that accompany another one below ``root``, and why, as half a sentence.

    They stand beside what they accompany, and
    * have a name for it (``images_4``, ``rgb_half``, ``thumbnails``) and smaller pictures of the same file
      names or, if the factor in their name is that of their size, as many of them;
    * have the same file names and a name of something drawn for each picture (``masks``, ``walk_depth``), or
      one channel beside colour and such a word in their name (``depth_anything``);
    * have the name of an undistorted copy (``dense/images``) and the same file names; or
    * hold pictures of one channel with more than 8 bits, as depth cameras write them, beside colour.

    Returns these, and remarks on folders that only look so: smaller, or of one channel, with the same names.
    """
    found: dict[Path, str] = {}
    alike: dict[Path, str] = {}
    for parent, beside in _trees(folders, root).items():
        level = _Level(parent, beside)
        for path, tree in beside.items():
            why = _why(path, tree, level)
            remark = "" if why else _likeness(path, tree, level)
            for folder in tree.folders:
                if why:
                    found.setdefault(folder.path, why)
                elif remark:
                    alike.setdefault(folder.path, remark)
    return found, {path: remark for path, remark in alike.items() if path not in found}


def drawn_within(pictures: Sequence[Path]) -> str:
    """A remark on pictures of one folder that are named as masks or depth of others in it, or nothing."""
    stems = {without_suffix(picture.name): picture for picture in pictures}
    drawn = [
        (picture.name, stems[found["start"]].name)
        for stem, picture in stems.items()
        if (found := _MARKED.fullmatch(stem)) and found["start"] in stems
    ]
    if not drawn:
        return ""
    return (
        "some of its pictures are named as masks or depth of others, and are frames like these "
        f"({drawn[0][0]} of {drawn[0][1]}): move them to a folder of their own"
    )


@dataclass(frozen=True)
class _Tree:
    """All folders with pictures in or below one folder."""

    folders: tuple[Folder, ...]
    pictures: Mapping[str, Path]  # by name: below the folder, without suffixes


def _trees(folders: Sequence[Folder], root: Path) -> dict[Path, dict[Path, _Tree]]:
    """For each folder what is beside each other in it. What it holds itself stands under its own path."""
    members: dict[Path, dict[Path, list[Folder]]] = {}
    for folder in folders:
        members.setdefault(folder.path, {}).setdefault(folder.path, []).append(folder)
        inner = folder.path
        while inner != root:
            members.setdefault(inner.parent, {}).setdefault(inner, []).append(folder)
            inner = inner.parent
    return {
        parent: {path: _Tree(tuple(each), _names(each, path)) for path, each in beside.items()}
        for parent, beside in members.items()
        if len(beside) > 1
    }


def _names(folders: Iterable[Folder], top: Path) -> dict[str, Path]:
    names = {}
    for folder in folders:
        parts = folder.path.relative_to(top).parts
        # dense/images holds the pictures of images.
        parts = parts[1:] if parts and parts[0].lower() in _MAIN else parts
        for picture in folder.pictures:
            # Twice: the mask of 01.jpg is 01.jpg.png.
            names.setdefault("/".join((*parts, without_suffix(without_suffix(picture.name)))), picture)
    return names


class _Level:
    """What is beside each other in one folder; of thousands of scenes none is compared with all."""

    def __init__(self, parent: Path, beside: Mapping[Path, _Tree]) -> None:
        self.parent, self.beside = parent, beside
        # The usual names first, then the shortest: images_2 stands for images where that is gone.
        self._order = sorted(
            beside, key=lambda path: (_rank(path, parent), path != parent and len(path.name), path.name)
        )
        self._said: dict[frozenset[str], list[Path]] = {}
        for path in self._order:
            self._said.setdefault(_words(path, _SMALL), []).append(path)

    def accompanied(self, path: Path) -> list[Path]:
        """What a folder may accompany by its name."""
        rest = _words(path, f"{_SMALL}|{_DRAWN}|{_DRAWN_MORE}|{_UNDISTORTED}")
        named = self._said.get(rest, []) if rest else []
        if not _words(path) or not (rest <= set(_MAIN) or _some(path, _DRAWN)):
            return [other for other in named if other != path]
        return [other for other in dict.fromkeys((*named, *self._order)) if other != path]

    @cached_property
    def main(self) -> Path | None:
        """The folder that has a usual name, if there is one."""
        first = self._order[0]
        return first if _rank(first, self.parent) < len(_MAIN) else None

    @cached_property
    def colour(self) -> Path | None:
        """The first folder that is not as a depth camera's."""
        return next((path for path in self._order if not _deep(self.beside[path])), None)


def _words(path: Path, but: str = "") -> frozenset[str]:
    """The words of a name, but for some."""
    words = re.findall(r"[^\W\d_]+", path.name.lower())
    return frozenset(word for word in words if not re.fullmatch(but, word))


def _some(path: Path, words: str) -> bool:
    """Whether any of these words is in a name."""
    return _words(path) != _words(path, words)


def _why(path: Path, tree: _Tree, level: _Level) -> str:
    """Why one of the trees in a folder accompanies another one; empty if it does not."""
    parent = level.parent
    if path == parent or path.name.lower() in _MAIN:
        return ""
    for other in level.accompanied(path):
        theirs = level.beside[other]
        if _drawn_for(tree, theirs) and (by := _drawn(path, tree, other, parent, theirs)):
            return f"{_count(tree)} of {_called(other, parent)}: drawn for each picture, by its {by}"
        if _reduced(path, tree, other, theirs):
            same = _count(tree) if _within(tree, theirs) else f"as many pictures ({len(tree.pictures)})"
            return f"{same} as {_called(other, parent)}, smaller"
        undistorted = _some(path, _UNDISTORTED) and _words(path, _UNDISTORTED) <= set(_MAIN)
        if undistorted and _rank(other, parent) < len(_MAIN) and _within(tree, theirs):
            return f"{_count(tree)} as {_called(other, parent)}: an undistorted copy, by its name"
    if _deep(tree) and level.colour is not None:
        return f"one channel of more than 8 bits, as of depth, beside {_called(level.colour, parent)}"
    return ""


def _likeness(path: Path, tree: _Tree, level: _Level) -> str:
    """A remark where a folder looks like a copy or a drawing of the main one, but for its name."""
    main = level.main
    if main is None or path in (main, level.parent) or not _within(tree, level.beside[main]):
        return ""
    scale = _scale(tree, level.beside[main])
    if scale is not None and min(scale) > 1.0:
        looks = "smaller"
    elif _grey(tree) and not _grey(level.beside[main]):
        looks = "in one channel"
    else:
        return ""
    return (
        f"{_count(tree)} as {main.name}, {looks}: taken as pictures of their own; move them if they are not"
    )


def _rank(path: Path, parent: Path) -> int:
    name = path.name.lower()
    return _MAIN.index(name) if path != parent and name in _MAIN else len(_MAIN)


def _called(path: Path, parent: Path) -> str:
    return "the folder that it is in" if path == parent else path.name


def _count(tree: _Tree) -> str:
    count = len(tree.pictures)
    return f"the same {count} names" if count > 1 else "the same name"


def _within(tree: _Tree, other: _Tree) -> bool:
    """Whether every picture has one of its name there."""
    return tree.pictures.keys() <= other.pictures.keys()


def _drawn_for(tree: _Tree, other: _Tree) -> bool:
    """Whether every picture has one of its name there, where 0001_mask is a name of 0001."""
    return all(name in other.pictures or _plain(name) in other.pictures for name in tree.pictures)


def _plain(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    found = _MARKED.fullmatch(file)
    return f"{folder}{slash}{found['end'] or found['start']}" if found else name


def _drawn(path: Path, tree: _Tree, other: Path, parent: Path, theirs: _Tree) -> str:
    """By what a folder shows to be drawn for the pictures of another one: its name, with what it holds."""
    rest = f"{_DRAWN}|{_DRAWN_MORE}"
    if not _some(path, _DRAWN) or (other != parent and _some(other, _DRAWN) and not _words(other, rest)):
        return ""
    if _words(path, rest) in (frozenset(), frozenset() if other == parent else _words(other)):
        return "name"  # masks; walk_mask beside walk
    return "name and its one channel" if _grey(tree) and not _grey(theirs) else ""


def _reduced(path: Path, tree: _Tree, other: Path, theirs: _Tree) -> bool:
    """Whether a folder is named as a reduced copy of another one, and its pictures are as much smaller."""
    factor, larger = _number(path), _number(other)
    same, usual = _within(tree, theirs), _words(path, _SMALL) <= set(_MAIN)
    named = _words(path, _SMALL) == _words(other, _SMALL)
    as_many = named and factor is not None and len(tree.pictures) == len(theirs.pictures)
    if not (same or as_many) or (_some(path, _DRAWN) and not named):
        return False
    scale = _scale(tree, theirs)
    if scale is None or min(scale) <= 1.0:
        return False
    if factor and (usual or not larger) and abs(max(scale) * (larger or 1) / factor - 1.0) < 0.05:
        return True
    whole = max(abs(each - round(max(scale))) for each in scale) < 0.02 * max(scale)
    return same and (_some(path, _SMALL) or (usual and whole))


def _number(path: Path) -> int | None:
    """The number at the end of a name."""
    found = re.search(r"(\d+)x?$", path.name.lower())
    return int(found[1]) or None if found else None


def _scale(tree: _Tree, other: _Tree) -> tuple[float, float] | None:
    """How many times as high and wide another folder's first picture is; None if it cannot be read."""
    key, picture = next(iter(tree.pictures.items()))
    mine, full = _first(picture), _first(other.pictures.get(key) or next(iter(other.pictures.values())))
    if mine is None or full is None:
        return None
    return full.size[0] / mine.size[0], full.size[1] / mine.size[1]


def _grey(tree: _Tree) -> bool:
    """Whether the pictures have one channel, or a palette; judged by the first."""
    frame = _first(next(iter(tree.pictures.values())))
    return frame is not None and len(frame.picture.format.components) == 1


def _deep(tree: _Tree) -> bool:
    """Whether the pictures have one channel of more than 8 bits; judged by the first."""
    picture = next(iter(tree.pictures.values()))
    if picture.suffix.lower() not in (".png", ".tif", ".tiff") or _shallow_png(picture):
        return False
    frame = _first(picture)
    if frame is None:
        return False
    components = frame.picture.format.components
    return len(components) == 1 and components[0].bits > 8


def _shallow_png(picture: Path) -> bool:
    """Whether a PNG's header already says that it has colours or at most 8 bits: most need no decoding."""
    try:
        with picture.open("rb") as file:
            header = file.read(26)
    except OSError:
        return False
    return header.startswith(b"\x89PNG\r\n\x1a\n") and len(header) == 26 and header[24:] != bytes((16, 0))


@lru_cache(maxsize=16)
def _first(picture: Path) -> SourceFrame | None:
    """The picture itself, or None: whoever uses it says what is wrong with it."""
    try:
        return next(read_frames(picture))
    except ClipError:
        return None
