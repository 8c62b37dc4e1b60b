"""Raw videos to annotated clips: find the files, pair them with poses and captions, cut, resize and crop.

A source is a video file, a folder of images (its frames) or a single image. One that cannot be used raises
``ClipError`` and costs only itself.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import detect_format, read_pose_file
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.inspection import hints
from camctrl_jax.clip_shape import ClipShape, longest_clip
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.text import MissingText, PrecomputedText
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.decoding import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    count_frames,
    list_images,
    read_frames,
    resample,
)
from camctrl_jax.video.encoding import encode_mp4


@dataclass(frozen=True)
class CutSettings:
    """How videos become clips.

    Attributes:
      fps: frames per second of the clips; frames are picked by time stamps, never blended.
      frames: T = 4k+1, the length of a clip.
      min_frames: what is left at the end of a video is kept, shortened to 4k+1 frames, if it has this many.
      stride: frames from the start of one clip to the start of the next; None is ``frames``: no overlap.
      height, width: size of the clips, multiples of 16; pictures are resized to cover it and cropped to the
        centre.
      image_fps: frames per second that folders of images are taken to have; None is ``fps``.
      crf: quality of the mp4; lower is better and larger.
    """

    fps: float = 12.0
    frames: int = 49
    min_frames: int = 17
    stride: int | None = None
    height: int = 96
    width: int = 160
    image_fps: float | None = None
    crf: float = 12.0

    def __post_init__(self) -> None:
        ClipShape(self.frames, self.height, self.width).check()
        ClipShape(self.min_frames, self.height, self.width).check(prefix="min_")
        if self.min_frames > self.frames:
            raise InvalidValue(
                f"min_frames is {self.min_frames}, more than the {self.frames} frames of a clip."
            )
        if self.stride is not None and self.stride < 1:
            raise InvalidValue(f"stride is {self.stride}; expected at least one frame.")
        if not self.fps > 0 or (self.image_fps is not None and not self.image_fps > 0):
            raise InvalidValue(
                f"fps is {self.fps} and image_fps {self.image_fps}; expected positive numbers."
            )


def find_sources(path: str | os.PathLike[str], *, stills: bool = False) -> list[Path]:
    """All sources under a folder, or the one that ``path`` is; sorted, hidden files left out.

    Args:
      path: a video, an image, a folder of images (one source), or a folder with any of these below it.
      stills: take every image as a source of its own instead of taking a folder of images as one video.

    Raises FileNotFoundError when there is nothing to be found.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"--source {path}: no such file or folder.")
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        found += [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        images = list_images(folder)
        found += images if stills else [Path(folder)] * bool(images)
    if not found:
        raise MissingFile(
            f"--source {path}: no videos ({' '.join(VIDEO_SUFFIXES)}) and no images "
            f"({' '.join(IMAGE_SUFFIXES)}) in it."
        )
    return sorted(found)


def _below(source: Path, root: Path) -> Path:
    """The name of a source below the folder that was given; of the folder or file itself, its own name."""
    return source.relative_to(root) if source != root else Path(source.name)


class Captions:
    """Captions of sources, one or more phrasings each.

    Read from a folder with ``NAME.txt`` per source (one phrasing per line), a ``.txt`` file (for every
    source), a ``.json`` (name -> text or list of texts), a ``.jsonl`` (``{"file": .., "caption": ..}`` per
    line) or a ``.csv`` with the columns file and caption; repeated rows are further phrasings. Names may have
    a folder and a suffix.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise MissingFile(f"--captions {self.path}: no such file or folder.")
        self._for_all: tuple[str, ...] | None = None
        self._used: set[str] = set()
        self._by_name: Mapping[str, list[str]] = {}
        suffix = self.path.suffix.lower()
        if self.path.is_dir():
            return
        if suffix == ".txt":
            self._for_all = self._lines(self.path)
        elif suffix in (".json", ".jsonl", ".csv"):
            self._by_name = self._table(suffix)
        else:
            raise InvalidValue(f"--captions {self.path}: expected a folder, .txt, .json, .jsonl or .csv.")

    def _lines(self, path: Path) -> tuple[str, ...]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ClipError("bad_caption", f"{path}: not UTF-8 text ({error}).") from error
        found = tuple(line.strip() for line in lines if line.strip())
        if not found:
            raise ClipError(
                "empty_caption", f"{path}: the caption file is empty; write a caption or delete it."
            )
        return found

    def _table(self, suffix: str) -> dict[str, list[str]]:
        where, table = "the file", {}
        try:
            text = self.path.read_text(encoding="utf-8-sig")
            if suffix == ".json":
                for name, value in json.loads(text).items():
                    where = repr(name)
                    table[name] = [value] if isinstance(value, str) else list(value)
                    _check_texts(table[name])
                return table
            rows = text.splitlines() if suffix == ".jsonl" else csv.DictReader(text.splitlines())
            for number, row in enumerate(rows, start=1 if suffix == ".jsonl" else 2):
                where = f"line {number}"
                if suffix == ".jsonl":
                    if not row.strip():
                        continue
                    row = json.loads(row)
                _check_texts([row["file"], row["caption"]])
                table.setdefault(row["file"], []).append(row["caption"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # not UTF-8 or JSON, not a table
            raise InvalidValue(
                f"--captions {self.path}: {where} cannot be read ({type(error).__name__}: {error}); expected "
                "file names with their captions, in UTF-8."
            ) from error
        return table

    def find(self, source: Path, root: Path) -> tuple[str, ...]:
        """The captions of a source. Raises ClipError ``no_caption`` or ``empty_caption``."""
        if self._for_all is not None:
            return self._for_all
        below = _below(source, root)
        if self.path.is_dir():
            for name in (below.with_suffix(".txt"), Path(f"{below}.txt"), Path(f"{below.stem}.txt")):
                if (self.path / name).is_file():
                    self._used.add(str(name))
                    return self._lines(self.path / name)
            raise ClipError(
                "no_caption", f"{source}: no caption; expected {self.path / below.with_suffix('.txt')}."
            )
        for name in (str(below), str(below.with_suffix("")), below.name, below.stem):
            if name in self._by_name:
                self._used.add(name)
                found = tuple(text.strip() for text in self._by_name[name] if text.strip())
                if not found:
                    raise ClipError(
                        "empty_caption", f"{source}: the caption of {name!r} in {self.path} is empty."
                    )
                return found
        raise ClipError("no_caption", f"{source}: {self.path} has no caption for {str(below)!r}.")

    def unmatched(self) -> list[str]:
        """Captions that were never asked for: their video is missing, or has another name."""
        if self.path.is_dir():
            names = [str(file.relative_to(self.path)) for file in self.path.rglob("*.txt")]
        else:
            names = list(self._by_name)
        return [f"{self.path}: {name}" for name in sorted(set(names) - self._used)]


def _check_texts(values: list) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values} is not text")


class Poses:
    """Camera paths of sources: one file for the only source, or a folder with one named like each source."""

    def __init__(self, path: str | os.PathLike[str], *, metric: bool) -> None:
        self.path, self.metric = Path(path), metric
        self.remarks: list[str] = []  # what was assumed or looks odd in files that are used
        self._used: set[Path] = set()
        if not self.path.exists():
            raise MissingFile(f"--poses {self.path}: no such file or folder.")

    def find(self, source: Path, root: Path, size: tuple[int, int]) -> Cameras | None:
        """The validated cameras of every frame of a source; None if it has no pose file.

        Raises ClipError ``bad_pose`` for a file that cannot be used and ``ambiguous_poses`` for several of
        them.
        """
        path = self.path
        if path.is_dir() and root.is_dir() and source != root:
            below = _below(source, root)
            folders = {self.path / below.parent, self.path}
            matches = sorted(
                each
                for folder in folders
                if folder.is_dir()
                for each in folder.iterdir()
                if below.stem in (each.stem, each.name) and not each.name.startswith(".")
            )
            if not matches:
                return None
            if len(matches) > 1:
                names = ", ".join(str(match) for match in matches)
                raise ClipError("ambiguous_poses", f"{source}: several pose files fit: {names}; keep one.")
            path = matches[0]
        elif path.is_dir():
            named = sorted(each for each in path.iterdir() if each.stem == source.stem)
            path = named[0] if len(named) == 1 else path
        self._used.add(path)
        try:
            # Pixels where fractions are expected are refused: their picture may have had another size.
            fractions = detect_format(path).name == "realestate10k"
            _, pose_file = read_pose_file(path, image_size=None if fractions else size)
        except (ValueError, OSError) as error:
            raise ClipError("bad_pose", str(error)) from error
        cameras = pose_file.cameras
        self.remarks += [f"{path}: {remark}" for remark in (*pose_file.notes, *hints(cameras))]
        if self.metric and not cameras.metric:
            cameras = Cameras(cameras.world_from_camera, cameras.intrinsics, cameras.times, metric=True)
        return cameras

    def unmatched(self) -> list[str]:
        """Pose files and folders that were never asked for: their video is missing, or has another name."""
        if not self.path.is_dir() or self.path in self._used:
            return []
        folders = {self.path, *(used.parent for used in self._used)}
        found = {each for folder in folders for each in folder.iterdir() if not each.name.startswith(".")}
        return sorted(str(each) for each in found - self._used - folders)


def cut_source(
    source: Path,
    root: Path,
    settings: CutSettings,
    *,
    poses: Poses | None = None,
    captions: Captions | None = None,
    text: PrecomputedText | None = None,
    encoder: Autoencoder | None = None,
) -> Iterator[ClipRecord]:
    """The clips of one source, decoded once and never held as a whole.

    Raises ClipError for a source that cannot be used; nothing is yielded then, unless the damage only shows
    while decoding: clips before a damaged frame are sound.
    """
    phrasings = captions.find(source, root) if captions is not None else ("",)
    embedded: dict[str, np.ndarray] = {}
    if text is not None:
        try:
            vectors, mask = text.embed(phrasings)
        except MissingText as error:
            raise ClipError("no_text_embedding", f"{source}: {error}") from error
        embedded = {"text": vectors.astype(np.float16), "text_mask": mask}
    image_fps = settings.image_fps or settings.fps
    frames = read_frames(source, image_fps=image_fps)
    first = next(frames)
    source_frames = count_frames(source)
    cameras = poses.find(source, root, first.size) if poses is not None else None
    if cameras is not None and len(cameras) != source_frames:
        raise ClipError(
            "pose_count",
            f"{source}: {source_frames} frames, but {len(cameras)} poses; one pose per frame of the source "
            "is needed.",
        )
    framing = Framing.cover(first.size, (settings.height, settings.width))
    frames.close()

    def record(indices: list[int], pictures: list[np.ndarray]) -> ClipRecord:
        kept = longest_clip(len(pictures))
        video = np.stack(pictures[:kept])
        chosen = None
        if cameras is not None:
            chosen = cameras[np.asarray(indices[:kept])]
            chosen = Cameras(
                chosen.world_from_camera, framing.intrinsics(chosen.intrinsics), metric=chosen.metric
            )
        return ClipRecord(
            id=f"{_below(source, root)}#{indices[0]:06d}",
            num_frames=kept,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            cameras=chosen,
            captions=phrasings,
            video=None if encoder is not None else encode_mp4(video, settings.fps, crf=settings.crf),
            latents=None
            if encoder is None
            else np.asarray(encoder.encode(video[None], dtype=jnp.float16)[0]),
            source=f"{source} from frame {indices[0]}",
            **embedded,
        ).validate()

    stride = settings.stride or settings.frames
    indices: list[int] = []
    pictures: list[np.ndarray] = []
    skip, unseen, made = 0, 0, 0  # frames to pass over before the next clip; frames in no clip yet; clips
    for frame in resample(read_frames(source, image_fps=image_fps), settings.fps, str(source)):
        if skip:
            skip -= 1
            continue
        if frame.size != first.size:
            raise ClipError("mixed_sizes", f"{source}: the picture size changes at frame {frame.index}.")
        indices.append(frame.index)
        pictures.append(frame.rgb(framing))
        unseen += 1
        if len(pictures) == settings.frames:
            yield record(indices, pictures)
            made += 1
            skip = max(0, stride - settings.frames)
            indices, pictures, unseen = indices[stride:], pictures[stride:], 0
    if len(pictures) >= settings.min_frames and (unseen >= settings.min_frames or not made):
        yield record(indices, pictures)
        made += 1
    if not made:
        raise ClipError(
            "too_short",
            f"{source}: {len(pictures)} frames at {settings.fps:g} fps; a clip needs at least "
            f"{settings.min_frames}.",
        )


def video_records(
    sources: list[Path],
    root: Path,
    settings: CutSettings,
    tally: SkipTally,
    *,
    poses: Poses | None = None,
    captions: Captions | None = None,
    text: PrecomputedText | None = None,
    encoder: Autoencoder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[ClipRecord]:
    """The clips of all sources. Bad ones are skipped and counted in ``tally``, which stops at too many.

    ``progress`` is called with (sources done, sources in all).
    """
    for done, source in enumerate(sources, start=1):
        try:
            yield from cut_source(
                source, root, settings, poses=poses, captions=captions, text=text, encoder=encoder
            )
            tally.use()
        except ClipError as error:
            tally.skip(str(source), error)
        if progress is not None:
            progress(done, len(sources))
    tally.unmatched += [
        name for annotations in (poses, captions) if annotations for name in annotations.unmatched()
    ]
    tally.remarks += poses.remarks if poses else []
    tally.finish()
