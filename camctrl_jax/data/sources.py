"""Finding videos and folders of pictures below a folder: each real file once, and nothing left out unsaid."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camctrl_jax.data.companions import Folder, companions
from camctrl_jax.errors import MissingFile
from camctrl_jax.video.decoding import IMAGE_SUFFIXES, VIDEO_SUFFIXES, list_images

# Pictures and videos that people have and that are not read. Named, so that nobody looks for them in vain.
_NOT_READ = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".exr", ".hdr", ".tga", ".psd", ".svg", ".ppm", ".pgm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw", ".insp"),
    *(".insv", ".360", ".braw", ".r3d", ".mxf", ".vob", ".rm", ".rmvb", ".asf", ".f4v", ".y4m", ".m2v"),
    *(".h264", ".h265", ".hevc", ".apng", ".mjpeg", ".mjpg", ".lrv", ".dv", ".mpv"),
)
# Folders that systems, archives and network drives make for themselves.
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "system volume information")
)


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not taken, and why, as half a sentence."""

    path: str
    why: str


@dataclass(frozen=True)
class Found:
    """What was found below a folder.

    Attributes:
        sources: videos, folders of pictures and, where asked for, single pictures; sorted.
        left_out: what is not a source although it looks like one.
        broken: links to nothing and folders that cannot be read: (name, reason, message).
          copies: sources with the same bytes as another one: (source, the first of them).
        remarks: on folders that are taken and look like copies of another one: (folder, remark).
    """

    sources: tuple[Path, ...]
    left_out: tuple[LeftOut, ...] = ()
    broken: tuple[tuple[str, str, str], ...] = ()
    copies: tuple[tuple[Path, Path], ...] = ()
    remarks: tuple[tuple[Path, str], ...] = ()


def find_sources(
    path: str | os.PathLike[str],
    *,
    stills: bool = False,
    every_folder: bool = False,
    option: str = "--source",
) -> Found:
    """All sources under a folder, or the one that ``path`` is.

    Every real file and folder is taken once, whatever links lead to it, under its own name where that is
    below ``path``. Hidden files are no sources. Folders that accompany another one (the same pictures at
    reduced size, their masks, depth) are left out.

    Args:
      path: a video, an image, a folder of images (one source), or a folder with any of these below it.
      stills: take every image as a source of its own instead of taking a folder of images as one video.
      every_folder: take the accompanying folders too.
      option: what messages call ``path``.

    Raises FileNotFoundError when there is nothing to be found.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{option} {path}: no such file or folder.")
    if path.is_file():
        return Found((path,))
    walk = _Walk(path)
    walk.run()
    folders, left_out = walk.folders, walk.left_out
    for folder, first in _linked_again(folders).items():
        del folders[folder]
        left_out.append(LeftOut(str(folder), f"its pictures are links to those of {first}"))
    remarks: tuple[tuple[Path, str], ...] = ()
    if not every_folder:
        beside, alike = companions(
            [Folder(folder, tuple(images)) for folder, images in folders.items()], path
        )
        left_out += [LeftOut(str(folder), why) for folder, why in beside.items()]
        folders = {folder: images for folder, images in folders.items() if folder not in beside}
        remarks = tuple(alike.items())
    if not (every_folder or stills):
        for folder, why in _covers(folders, walk.videos).items():
            left_out += [
                LeftOut(str(image), f"{why} (--stills takes pictures)") for image in folders.pop(folder)
            ]
    sources = [*walk.videos]
    for folder, images in folders.items():
        sources += images if stills else [folder]
    left_out = sorted(left_out, key=lambda each: each.path)
    if not sources:
        others = "".join(f"\n  not taken: {each.path}: {each.why}" for each in left_out[:10])
        others += "".join(f"\n  not taken: {message}" for _, _, message in walk.broken[:10])
        raise MissingFile(
            f"{option} {path}: no videos ({' '.join(VIDEO_SUFFIXES)}) and no images "
            f"({' '.join(IMAGE_SUFFIXES)}) in it.{others}"
        )
    sources.sort()
    return Found(
        tuple(sources), tuple(left_out), tuple(sorted(walk.broken)), tuple(_copies(sources)), remarks
    )


def below(source: Path, root: Path) -> Path:
    """The name of a source below the folder that was given; of the folder or file itself, its own name."""
    return source.relative_to(root) if source != root else Path(source.name or source.resolve().name)


def pictures_of(source: Path) -> list[Path]:
    """The picture files that a source consists of, in their order; none of a video."""
    if source.is_dir():
        return list_images(source)
    return [source] if source.suffix.lower() in IMAGE_SUFFIXES else []


def kind_of(source: Path) -> str:
    """``pictures``, ``still`` or ``video``."""
    if source.is_dir():
        return "pictures"
    return "still" if source.suffix.lower() in IMAGE_SUFFIXES else "video"


class _Walk:
    """One walk: first what is really there, then, in order, what only links lead to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.videos: list[Path] = []
        self.folders: dict[Path, list[Path]] = {}
        self.left_out: list[LeftOut] = []
        self.broken: list[tuple[str, str, str]] = []
        self._links: list[Path] = []
        self._taken: dict[tuple[int, int], Path] = {}

    def run(self) -> None:
        self._enter(self.root)
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                try:
                    self._follow(link)
                except OSError as error:
                    self.broken.append((str(link), "unreadable", f"{link}: {error.strerror or error}."))

    def _enter(self, folder: Path) -> None:
        """Take what is in a folder and below it, by its own recursion rather than Python's."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            if self._again(folder):
                continue
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                self.broken.append((str(folder), "unreadable", f"{folder}: {error.strerror or error}."))
                continue
            waiting += [entry for entry in entries if self._entry(entry)][::-1]
            if not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries):
                continue
            # A folder of pictures is one source: links among them, even to one picture twice, are its frames.
            images = [image for image in list_images(folder) if image.name[0] != "." and not image.is_dir()]
            if images:
                self.folders[folder] = images

    def _entry(self, entry: Path) -> bool:
        """Look at one entry; whether it is a folder to walk."""
        suffix = entry.suffix.lower()
        if entry.name.startswith("."):
            if suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) or entry.name.startswith("._"):
                self.left_out.append(LeftOut(str(entry), "a hidden file"))
            return False
        if entry.name.lower() in _SYSTEM_FOLDERS:
            self.left_out.append(LeftOut(str(entry), "a folder of the system's own"))
            return False
        if entry.is_symlink() and (suffix not in IMAGE_SUFFIXES or entry.is_dir()):
            self._links.append(entry)
            return False
        if entry.is_dir():
            return True
        self._file(entry)
        return False

    def _file(self, file: Path) -> None:
        suffix = file.suffix.lower()
        if suffix in _NOT_READ:
            self.left_out.append(
                LeftOut(str(file), f"{suffix} is not supported; convert it to PNG, JPEG or MP4")
            )
        elif suffix in VIDEO_SUFFIXES:
            if not stat.S_ISREG(file.stat().st_mode):
                self.left_out.append(LeftOut(str(file), "not a regular file"))
            elif not self._again(file):
                self.videos.append(file)

    def _follow(self, link: Path) -> None:
        suffix = link.suffix.lower()
        if not link.exists():
            if suffix in VIDEO_SUFFIXES or not suffix:
                message = f"{link}: a link to {os.readlink(link)}, which is not there."
                self.broken.append((str(link), "missing", message))
        elif link.is_dir() and self.root.resolve().is_relative_to(link.resolve()):
            self.left_out.append(LeftOut(str(link), f"a link to {link.resolve()}, which holds --source"))
        elif link.is_dir():
            self._enter(link)
        else:
            self._file(link)

    def _again(self, path: Path) -> bool:
        """Whether a file or folder was taken under another name."""
        status = path.stat()
        first = self._taken.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        what = "a link to" if path.is_symlink() else "the same file as"
        self.left_out.append(LeftOut(str(path), f"{what} {first}, which is taken already"))
        return True


def _linked_again(folders: Mapping[Path, Sequence[Path]]) -> dict[Path, Path]:
    """Folders whose pictures are, behind links, all those of another folder, with that one."""
    files = {folder: {_file_identity(image) for image in images} for folder, images in folders.items()}
    holders: dict[Any, list[Path]] = defaultdict(list)
    again: dict[Path, Path] = {}
    # Those that hold the pictures themselves come before those that link to them.
    for folder in sorted(folders, key=lambda each: (any(map(os.path.islink, folders[each])), each)):
        some = next(iter(files[folder]))
        whole = next((other for other in holders[some] if files[folder] <= files[other]), None)
        if whole is not None:
            again[folder] = whole
            continue
        for identity in files[folder]:
            holders[identity].append(folder)
    return again


def _covers(folders: Mapping[Path, Sequence[Path]], videos: Sequence[Path]) -> dict[Path, str]:
    """Folders whose pictures are no frames, but covers of what is beside them, with half a sentence on each.

    They hold pictures named like their videos (``walk.jpg``, ``walk-thumb.jpg``), and at most one other, or a
    single picture above other sources.
    """
    names: dict[Path, list[str]] = defaultdict(list)
    for video in videos:
        names[video.parent].append(video.stem.casefold())
    above = {parent for source in (*videos, *folders) for parent in source.parents}
    covers = {}
    for folder, images in folders.items():
        others = [image for image in images if not _named_like(image, names.get(folder, ()))]
        if folder in names and len(others) <= 1:
            covers[folder] = "a picture beside videos, not a folder of frames"
        elif len(images) == 1 and folder in above:
            covers[folder] = "a single picture above other sources"
    return covers


def _named_like(image: Path, stems: Sequence[str]) -> bool:
    """Whether a picture has the name of a video, with something behind it or not."""
    name = image.stem.casefold()
    return any(name == stem or (name.startswith(stem) and not name[len(stem)].isalnum()) for stem in stems)


def _file_identity(file: Path) -> Any:
    try:
        status = file.stat()
    except OSError:  # a broken link: reading it says so
        return file
    return status.st_dev, status.st_ino


def _copies(sources: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Sources with the same bytes as one before them. Only what has one's size is read."""
    alike: dict[Any, list[Path]] = defaultdict(list)
    for source in sources:
        try:
            files = pictures_of(source) if source.is_dir() else [source]
            alike[
                tuple((file.name if source.is_dir() else "", file.stat().st_size) for file in files)
            ].append(source)
        except OSError:  # reading it will say so
            continue
    copies = []
    for group in alike.values():
        first: dict[str, Path] = {}
        for source in group if len(group) > 1 else ():
            digest = _digest(pictures_of(source) if source.is_dir() else [source])
            if digest in first:
                copies.append((source, first[digest]))
            elif digest:
                first[digest] = source
    return sorted(copies)


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    except OSError:
        return ""
    return digest.hexdigest()
