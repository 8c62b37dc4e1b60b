"""Reading videos, image folders and single images with PyAV.

Every way in which a file can be unusable becomes a ``ClipError`` with one of these reasons: ``missing``,
``unreadable`` (no video, or cut off before its index), ``no_video``, ``no_frames``, ``truncated``,
``corrupt``, ``colour``, ``several_pictures``, ``mixed_sizes``, ``low_frame_rate``, ``too_short``.

Pictures come as they are meant to be seen: turned and mirrored, with square pixels, opaque, in BT.709
(``camctrl_jax.video.looks``). Reading returns the size as shown, whatever it is;
``camctrl_jax.video.encoding`` says which sizes are padded on writing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.formats.names import natural
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.orientation import Orientation
from camctrl_jax.errors import ClipError
from camctrl_jax.extras import require
from camctrl_jax.video.containers import Opened, count_presented, decoded, open_source
from camctrl_jax.video.looks import AS_STORED, Look, look_of

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".flv", ".wmv", ".ogv", ".gif"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class SourceFrame:
    """One decoded picture of a source.

    Attributes:
        index: its number in the source.
        time: seconds from the first one.
        picture: the av.VideoFrame as stored, but without transparency.
        look: from there to the picture as shown.
        name: the file's name, for a picture of a folder; otherwise empty.
        remarks: what was done to it that a user should know, a phrase each; the same words for every frame of
            a source that they hold for.
    """

    index: int
    time: float
    picture: Any
    look: Look = AS_STORED
    name: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in pixels as the file stores them."""
        return self.picture.height, self.picture.width

    @property
    def orientation(self) -> Orientation:
        """From the picture as stored to the picture as shown."""
        return self.look.orientation

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as it is meant to be seen: turned, with square pixels."""
        return self.look.size(self.stored_size)

    def rgb(self, framing: Framing | None = None) -> np.ndarray:
        """u8 [H, W, 3], resized and cropped if a framing is given."""
        picture = self.look.rgb(self.picture, self.size if framing is None else framing.resized)
        return np.ascontiguousarray(picture if framing is None else framing.crop(picture))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder in the order of the numbers in their names; hidden files are left out."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            # "._name.png" is what macOS writes beside "name.png" on foreign disks: no picture.
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
            and not entry.name.startswith(".")
            and not entry.is_dir()
        ]
    return [Path(folder, name) for name in sorted(names, key=natural)]


def _name(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    return name or ("video bytes" if isinstance(source, bytes) else str(source))


def read_frames(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, image_fps: float = 12.0
) -> Iterator[SourceFrame]:
    """Decode a video file, its bytes, a folder of images or one image, frame by frame.

    Args:
      source: path, or the bytes of a video file.
      name: what errors call it; None is the path.
      image_fps: frames per second that a folder of images is taken to have.

    Raises ClipError as soon as something is wrong; a truncated video only at its end, when frames are
    missing.
    """
    name = _name(source, name)
    reformatter = _reformatter()
    if not isinstance(source, bytes) and Path(source).is_dir():
        yield from _read_folder(Path(source), image_fps, reformatter)
        return
    with open_source(source, name) as opened:
        yield from _shown(opened, reformatter)


def count_frames(source: str | os.PathLike[str], *, name: str | None = None) -> int:
    """Frames that :func:`read_frames` gives: files of a folder, presented packets of a video.

    Packets are counted without decoding, but for the few videos where that does not tell.

    Raises ClipError ``truncated`` when there are fewer than the container announces.
    """
    name = _name(source, name)
    if Path(source).is_dir():
        return len(list_images(source))
    with open_source(source, name) as opened:
        count = 1 if opened.header.kind else count_presented(opened)
    if count is None:
        with open_source(source, name) as opened:
            count = sum(1 for _ in decoded(opened))
    return count


def _reformatter() -> Any:
    """What converts colours, with tables that are made once."""
    require("av", extra="data")
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _read_folder(folder: Path, image_fps: float, reformatter: Any) -> Iterator[SourceFrame]:
    images = list_images(folder)
    if not images:
        raise ClipError("no_frames", f"{folder}: holds no images ({' '.join(IMAGE_SUFFIXES)}).")
    size = None
    for index, path in enumerate(images):
        with open_source(path, str(path), one_picture=True) as opened:
            frame = next(_shown(opened, reformatter))
        if size is not None and frame.size != size:
            raise ClipError(
                "mixed_sizes",
                f"{path}: {frame.size[0]}x{frame.size[1]} pixels, but {images[0].name} has "
                f"{size[0]}x{size[1]}; the frames of one clip must have one size.",
            )
        size = frame.size
        yield SourceFrame(index, index / image_fps, frame.picture, frame.look, path.name, frame.remarks)


def _shown(opened: Opened, reformatter: Any) -> Iterator[SourceFrame]:
    """The frames of one file."""
    stream, name = opened.stream, opened.name
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    start, look, size, tags = None, AS_STORED, None, None
    for index, picture in enumerate(decoded(opened)):
        # Times count from the first frame; a frame without a time stamp follows at the average rate.
        stamp = picture.time if picture.time is not None else (start or 0.0) + index / rate
        start = stamp if start is None else start
        found = (
            (picture.height, picture.width),
            (picture.color_trc, picture.color_primaries, picture.format.name),
        )
        if found != (size, tags):
            if size is not None and found[0] != size:
                raise ClipError(
                    "mixed_sizes",
                    f"{name}: frame {index} has {found[0][0]}x{found[0][1]} pixels, those before "
                    f"{size[0]}x{size[1]}; the frames of one clip must have one size.",
                )
            size, tags = found
            look = look_of(picture, stream, opened.header, name, reformatter)
        picture, remarks = look.opaque(picture)
        yield SourceFrame(index, stamp - start, picture, look, "", remarks)


def resample(frames: Iterable[SourceFrame], fps: float, name: str) -> Iterator[SourceFrame]:
    """Pick the frame nearest to each of the times 0, 1/fps, 2/fps, ...

    Frames are picked, never blended, so a pose measured for a source frame stays exact: ``index`` still is
    the number in the source, ``time`` becomes k/fps. Raises ClipError ``low_frame_rate`` when more than one
    in twenty frames would have to be shown twice: motion that stutters must not be learnt.
    """
    previous: SourceFrame | None = None
    made, repeated, last = 0, 0, -1

    def emit(frame: SourceFrame) -> SourceFrame:
        nonlocal made, repeated, last
        repeated += frame.index == last
        last = frame.index
        if repeated > max(1, 0.05 * (made + 1)) and made >= 8:
            raise ClipError(
                "low_frame_rate",
                f"{name}: has too few frames for {fps:g} frames per second ({repeated} of the first "
                f"{made + 1} would repeat the one before); choose a lower rate.",
            )
        made += 1
        return dataclasses.replace(frame, time=(made - 1) / fps)

    gap = 0.0
    for frame in frames:
        if previous is not None:
            gap = frame.time - previous.time
            while made / fps <= previous.time + gap / 2:
                yield emit(previous)
        previous = frame
    # Behind the last frame another one is imagined, as far away as the one before.
    while previous is not None and made / fps <= previous.time + max(gap / 2, 1e-6):
        yield emit(previous)


def read_video(
    source: str | os.PathLike[str] | bytes,
    *,
    start: int = 0,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    framing: Framing | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Decode consecutive frames u8 [T, H, W, 3], without changing the frame rate.

    Args:
      source: path of a video, image folder or image, or the bytes of a video file.
      start, frames: the window; None reads to the end. A shorter source raises ClipError ``too_short``.
      size: true (height, width) of a video that was padded to even sizes on writing.
      framing: resize and crop on the way, from the true size.
      name: what errors call the source.
    """
    name = _name(source, name)
    pictures = []
    for frame in read_frames(source, name=name):
        if frame.index >= start:
            if size is None or frame.size == size:
                pictures.append(frame.rgb(framing))
            else:
                pictures.append(_reframed(frame.rgb()[: size[0], : size[1]], framing))
        if frames is not None and len(pictures) == frames:
            break
    if not pictures or (frames is not None and len(pictures) < frames):
        raise ClipError(
            "too_short",
            f"{name}: frames {start} to {start + (frames or 1) - 1} were asked for, "
            f"{start + len(pictures)} are there.",
        )
    return np.stack(pictures)


def _reframed(picture: np.ndarray, framing: Framing | None) -> np.ndarray:
    """Resize and crop one u8 [H, W, 3] picture that is already decoded."""
    if framing is None:
        return picture
    av = require("av", extra="data")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return SourceFrame(0, 0.0, frame).rgb(framing)


def read_image(path: str | os.PathLike[str], fill: tuple[int, int] | None = None) -> np.ndarray:
    """One picture, u8 [H, W, 3]; of a video or a folder the first frame.

    Args:
      path: of it.
      fill: (height, width) of the result: resized, and cropped around its middle. None: as it is.
    """
    if fill is None:
        return read_video(path, frames=1)[0]
    frame = next(read_frames(path))
    return frame.rgb(Framing.cover(frame.size, fill))
