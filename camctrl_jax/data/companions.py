"""Folders of pictures that accompany another one: copies at reduced size, masks, depth.

Capture tools write them beside the pictures (``images_2``, ``masks``, ``depth``). As clips they would show a
scene twice, or no scene. A name alone is no evidence: what the folder holds has to agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from camctrl_jax.data.pairing import without_suffix
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import SourceFrame, read_frames

# Where tools put the pictures themselves, the likeliest first.
_MAIN = (
    "images",
    "image",
    "rgb",
    "color",
    "colour",
    "frames",
    "input",
    "imgs",
    "img",
    "pictures",
    "jpegimages",
)
_REDUCED = re.compile(
    r"(?P<of>.+?)[_-]?(?:(?P<factor>\d+)x?|small|low|lowres|lores|thumbs?|thumbnails?|previews?|resized)"
)
_SMALL = re.compile(r"thumbs?|thumbnails?|previews?|small|lowres|lores|resized")
_DRAWN = (
    r"(?:dynamic_|sky_|object_|instance_|semantic_|human_|fg_)?(?:masks?|mattes?|alphas?|silhouettes?)"
    r"|segmentations?|segments?|segs?|semantics?|instances?|panoptic|annotations?|labels?"
    r"|depths?(?:_?maps?)?|depth_vis|disparit(?:y|ies)|disp|normals?(?:_?maps?)?|(?:un)?certainty"
    r"|confidences?|conf|flows?|error_maps?"
)
_ANNOTATIONS = re.compile(rf"(?:{_DRAWN})(?:[_-]\d+x?)?")
_BESIDE = re.compile(rf"(?P<of>.+?)[_-](?:{_DRAWN})(?:[_-]\d+x?)?")
_ANNOTATED_NAME = re.compile(rf"(?:{_DRAWN})[_.-](?P<end>.+)|(?P<start>.+)[_.-](?:{_DRAWN})", re.IGNORECASE)
_DRAWN_FOR = re.compile(rf"(?P<start>.+?)[_.-](?:{_DRAWN})(?:[_.-]\d+)?", re.IGNORECASE)
_UNDISTORTED = re.compile(
    r"(?:corrected|undistorted|rectified|dense)(?:[_-]?(?:images?|rgb|color|frames))?"
    r"|(?:images?|rgb|color|frames)[_-](?:corrected|undistorted|rectified)"
)


@dataclass(frozen=True)
class Folder:
    """A folder with pictures of its own, in their order."""

    path: Path
    pictures: tuple[Path, ...]


def companions(folders: Sequence[Folder], root: Path) -> dict[Path, str]:
    """Folders of pictures that accompany another one below ``root``, and why, as half a sentence.

    They stand beside what they accompany, and
    * have the name of a copy (``images_4``, ``thumbnails``), the same file names and smaller pictures;
    * have the name of something drawn for each picture (``masks``, ``walk_depth``) and the same file names;
    * have the name of an undistorted copy (``dense/images``) and the same file names; or
    * hold pictures of one channel with more than 8 bits, as depth cameras write them, beside colour.
    """
    trees = _trees(folders, root)
    found: dict[Path, str] = {}
    for parent, beside in trees.items():
        level = _Level(parent, beside)
        for path, tree in beside.items():
            why = _why(path, tree, level)
            if why:
                for folder in tree.folders:
                    found.setdefault(folder.path, why)
    return found


def drawn_within(pictures: Sequence[Path]) -> str:
    """A remark on pictures of one folder that are named as masks or depth of others in it, or nothing."""
    stems = {without_suffix(picture.name): picture for picture in pictures}
    drawn = [
        (picture.name, stems[found["start"]].name)
        for stem, picture in stems.items()
        if (found := _DRAWN_FOR.fullmatch(stem)) and found["start"] in stems
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
        self._named = {path.name.lower(): path for path in beside if path != parent}

    def accompanied(self, path: Path) -> list[Path]:
        """What a folder may accompany by its name."""
        name = path.name.lower()
        if any(pattern.fullmatch(name) for pattern in (_ANNOTATIONS, _SMALL, _UNDISTORTED)):
            return [other for other in self._order if other != path]
        bases = [found["of"] for pattern in (_REDUCED, _BESIDE) if (found := pattern.fullmatch(name))]
        others = [self._named[base] for base in bases if base in self._named]
        for base in set(bases) & set(_MAIN):
            others += [other for other in self._order if other.name.lower().startswith(base)]
        return [other for other in others if other != path]

    @cached_property
    def colour(self) -> Path | None:
        """The first folder that is not as a depth camera's."""
        return next((path for path in self._order if not _deep(self.beside[path])), None)


def _why(path: Path, tree: _Tree, level: _Level) -> str:
    """Why one of the trees in a folder accompanies another one; empty if it does not."""
    name, parent = path.name.lower(), level.parent
    if path == parent or name in _MAIN:
        return ""
    for other in level.accompanied(path):
        theirs = level.beside[other]
        if _annotation_of(name, other, parent) and _drawn_for(tree, theirs):
            return f"{_count(tree)} of {_called(other, parent)}: drawn for each picture, by its name"
        if _within(tree, theirs) and _reduced(name, tree, other, parent, theirs):
            return f"{_count(tree)} as {_called(other, parent)}, smaller"
        if _UNDISTORTED.fullmatch(name) and _rank(other, parent) < len(_MAIN) and _within(tree, theirs):
            return f"{_count(tree)} as {_called(other, parent)}: an undistorted copy, by its name"
    if _deep(tree) and level.colour is not None:
        return f"one channel of more than 8 bits, as of depth, beside {_called(level.colour, parent)}"
    return ""


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
    found = _ANNOTATED_NAME.fullmatch(file)
    return f"{folder}{slash}{found['end'] or found['start']}" if found else name


def _annotation_of(name: str, other: Path, parent: Path) -> bool:
    if _ANNOTATIONS.fullmatch(name):
        return other == parent or not _ANNOTATIONS.fullmatch(other.name.lower())
    found = _BESIDE.fullmatch(name)  # walk_mask beside walk
    return bool(found) and other != parent and found["of"] == other.name.lower()


def _reduced(name: str, tree: _Tree, other: Path, parent: Path, theirs: _Tree) -> bool:
    """Whether a folder is named as a reduced copy of another one, and its pictures are as much smaller."""
    found, base = _REDUCED.fullmatch(name), other.name.lower()
    if _SMALL.fullmatch(name):
        factor = None
    elif found is None or other == parent:
        return False
    elif found["of"] == base:
        factor = float(found["factor"]) if found["factor"] else None
    else:
        # images_4 beside images_2, where images is gone
        larger = _REDUCED.fullmatch(base)
        if not (larger and larger["of"] == found["of"] in _MAIN and larger["factor"] and found["factor"]):
            return False
        factor = float(found["factor"]) / max(1.0, float(larger["factor"]))
    key, picture = next(iter(tree.pictures.items()))
    mine, full = _first(picture), _first(theirs.pictures[key])
    if mine is None or full is None:
        return False
    measured = max(full.size) / max(mine.size)
    return measured > 1.0 and (factor is None or abs(measured / factor - 1.0) < 0.05)


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


def _first(picture: Path) -> SourceFrame | None:
    """The picture itself, or None: whoever uses it says what is wrong with it."""
    try:
        return next(read_frames(picture))
    except ClipError:
        return None
