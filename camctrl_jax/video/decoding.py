"""Reading videos, image folders and single images with PyAV.

Every way in which a file can be unusable becomes a ``ClipError`` with one of these reasons: ``missing``,
``unreadable`` (no video, or cut off before its index), ``no_video``, ``no_frames``, ``truncated``,
``corrupt``, ``mixed_sizes``, ``low_frame_rate``, ``too_short``.

Reading returns the stored size whatever it is; ``camctrl_jax.video.encoding`` says which sizes are padded on
writing. Colour is converted with swscale's accurate rounding and full chroma interpolation, as on writing.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.orientation import Orientation
from camctrl_jax.errors import ClipError
from camctrl_jax.extras import require
from camctrl_jax.video.colour import ACCURATE, AREA, BICUBIC, FULL_CHROMA, UNSPECIFIED

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".flv", ".wmv", ".ogv", ".gif"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_TRUNCATION_TOLERANCE = 0.02  # some muxers announce a few frames more than there are


@dataclass(frozen=True)
class SourceFrame:
    """One decoded picture of a source.

    Attributes:
        index: its number in the source.
        time: seconds from the first one.
        picture: the av.VideoFrame, as stored.
        orientation: from the picture as stored to the picture as shown.
        name: the file's name, for a picture of a folder; otherwise empty.
        remarks: what was done to the source that a user should know, a sentence each, the same for every frame.
    """

    index: int
    time: float
    picture: Any
    orientation: Orientation = Orientation()
    name: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in pixels as the file stores them."""
        return self.picture.height, self.picture.width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as it is meant to be seen, after the rotation that phones store."""
        height, width = self.picture.height, self.picture.width
        return (width, height) if _quarter_turns(self.picture) % 2 else (height, width)

    def rgb(self, framing: Framing | None = None) -> np.ndarray:
        """u8 [H, W, 3], resized and cropped if a framing is given."""
        turns = _quarter_turns(self.picture)
        height, width = self.size if framing is None else framing.resized
        shrinks = height * width < self.picture.height * self.picture.width
        stored_height, stored_width = (width, height) if turns % 2 else (height, width)
        options: dict[str, Any] = {}
        if self.picture.colorspace == UNSPECIFIED and self.picture.height >= 720:
            options["src_colorspace"] = "ITU709"  # what untagged HD means; below, swscale's BT.601 is right
        picture = self.picture.reformat(
            width=stored_width,
            height=stored_height,
            format="rgb24",
            interpolation=(AREA if shrinks else BICUBIC) | FULL_CHROMA | ACCURATE,
            **options,
        ).to_ndarray()
        picture = np.rot90(picture, turns)
        return np.ascontiguousarray(picture if framing is None else framing.crop(picture))


def _quarter_turns(picture: Any) -> int:
    """Counter-clockwise quarter turns that the file asks a player to make."""
    return round(picture.rotation / 90) % 4


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder in the order of the numbers in their names."""
    images = [path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame_10 comes after frame_9."""
    pieces = re.split(r"(\d+)", path.name)
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]


def _open(source: str | os.PathLike[str] | bytes, name: str) -> Any:
    av = require("av", extra="data")
    if not isinstance(source, bytes):
        path = Path(source)
        if not path.exists():
            raise ClipError("missing", f"{name}: no such file.")
        if path.stat().st_size == 0:
            raise ClipError("unreadable", f"{name}: the file is empty.")
        source = str(path)
    elif not source:
        raise ClipError("unreadable", f"{name}: no bytes.")
    try:
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ClipError(
            "unreadable",
            f"{name}: cannot be opened as a video ({_cause(error)}); not one, or cut off before its index.",
        ) from error
    # FFmpeg draws a text file as a picture: that is a pose file in the wrong place, not a video.
    if not container.streams.video or container.format.name == "tty":
        container.close()
        raise ClipError("no_video", f"{name}: holds no video stream.")
    return container


def _cause(error: Exception) -> str:
    """FFmpeg's words without the number and the file name that PyAV adds."""
    return getattr(error, "strerror", None) or str(error)


def _name(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    return name or ("video bytes" if isinstance(source, bytes) else str(source))


def _duration(container: Any) -> float:
    """Seconds the container announces, or 0.0."""
    return (container.duration or 0) / 1e6


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
    if not isinstance(source, bytes) and Path(source).is_dir():
        yield from _read_folder(Path(source), image_fps)
        return
    with _open(source, name) as container:
        count = 0
        for frame in _decoded(container, name, check_end=True):
            count += 1
            yield frame
    if count == 0:
        raise ClipError("no_frames", f"{name}: holds no frames.")


def count_frames(source: str | os.PathLike[str], *, name: str | None = None) -> int:
    """Frames of a source, counted without decoding: packets of a video, files of a folder.

    Raises ClipError ``truncated`` when there are fewer than the container announces.
    """
    name = _name(source, name)
    if Path(source).is_dir():
        return len(list_images(source))
    av = require("av", extra="data")
    with _open(source, name) as container:
        stream = container.streams.video[0]
        count, end = 0, 0.0
        try:
            for packet in container.demux(stream):
                if packet.size:
                    count += 1
                    if packet.pts is not None:
                        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.error.FFmpegError as error:
            raise ClipError(
                "truncated",
                f"{name}: cannot be read beyond frame {count} ({_cause(error)}); truncated or damaged.",
            ) from error
        start = float((stream.start_time or 0) * stream.time_base)
        _check_complete(container, name, count, end - start)
    return count


def _check_complete(container: Any, name: str, count: int, end: float) -> None:
    """Raise ClipError ``truncated`` if ``count`` frames up to second ``end`` are less than was announced."""
    announced, duration = container.streams.video[0].frames, _duration(container)
    if announced and announced - count > max(2, _TRUNCATION_TOLERANCE * announced):
        raise ClipError(
            "truncated", f"{name}: announces {announced} frames, only {count} are there; truncated."
        )
    if not announced and duration - end > max(0.5, 0.05 * duration):
        raise ClipError(
            "truncated", f"{name}: announces {duration:.2f} s, its frames end after {end:.2f} s; truncated."
        )


def _read_folder(folder: Path, image_fps: float) -> Iterator[SourceFrame]:
    images = list_images(folder)
    if not images:
        raise ClipError("no_frames", f"{folder}: holds no images ({' '.join(IMAGE_SUFFIXES)}).")
    size = None
    for index, path in enumerate(images):
        with _open(path, str(path)) as container:
            frame = next(_decoded(container, str(path), check_end=False), None)
        if frame is None:
            raise ClipError("no_frames", f"{path}: holds no picture.")
        if size is not None and frame.size != size:
            raise ClipError(
                "mixed_sizes",
                f"{path}: {frame.size[0]}x{frame.size[1]} pixels, but {images[0].name} has "
                f"{size[0]}x{size[1]}; the frames of one clip must have one size.",
            )
        size = frame.size
        yield SourceFrame(index, index / image_fps, frame.picture)


def _decoded(container: Any, name: str, *, check_end: bool) -> Iterator[SourceFrame]:
    av = require("av", extra="data")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    start = None
    index, time = 0, 0.0
    try:
        for picture in container.decode(stream):
            if picture.is_corrupt:
                raise ClipError("corrupt", f"{name}: frame {index} is damaged.")
            # Times count from the first frame; a frame without a time stamp follows at the average rate.
            stamp = picture.time if picture.time is not None else (start or 0.0) + index / rate
            start = stamp if start is None else start
            time = stamp - start
            yield SourceFrame(index, time, picture)
            index += 1
    except av.error.FFmpegError as error:
        raise ClipError(
            "truncated",
            f"{name}: decoding fails after {index} frames ({_cause(error)}); truncated or damaged.",
        ) from error
    if check_end and index:
        _check_complete(container, name, index, time + 1.0 / rate)


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
        return SourceFrame(frame.index, (made - 1) / fps, frame.picture)

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


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """One picture, u8 [H, W, 3]; of a video or a folder the first frame."""
    return read_video(path, frames=1)[0]
