"""Opening files with PyAV and taking their pictures out, one by one; what cannot be used says why.

Decoders conceal damage where they can. Here their errors count: a picture that was patched up is none. H.264
says so of each picture; of the other decoders the first error ends the reading. Damage that a decoder does
not notice (VP9 carries no checks; FFV1, WebP and TIFF do not hand theirs on) cannot be told from content.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camctrl_jax.errors import ClipError
from camctrl_jax.extras import require
from camctrl_jax.video.headers import Header, gif_is_whole, is_gif, picture_kind, read_header

_TRUNCATION_TOLERANCE = 0.02  # some muxers announce a few frames more than there are
# Codecs whose every packet becomes one picture; of others (VP8's hidden frames, packed B frames) some do not.
_ONE_TO_ONE = (
    *("h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video"),
    *("mjpeg", "png", "ffv1", "prores", "rawvideo", "gif", "apng", "dnxhd"),
)

# Demuxers that read nothing but the file they are given. Others (concat, HLS, DASH, SDP, image2's patterns)
# open further files or addresses that its content or name says, and files and bytes may come from anybody.
_SELF_CONTAINED = (
    *("mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "ivf", "nut", "m4v"),
    *("h264", "hevc", "av1", "obu", "vc1", "h261", "h263", "mjpeg", "mpjpeg", "yuv4mpegpipe", "dv", "mxf"),
    *("rm", "wtv", "nsv", "gif", "apng"),
    *(f"{kind}_pipe" for kind in ("png", "jpeg", "webp", "bmp", "tiff", "gif")),
    *("wav", "mp3", "aac", "flac", "tty"),  # to say that these hold no video
)

_NO_PICTURE = "its content is not a picture (JPEG, PNG, WebP, BMP, TIFF)"
# FFmpeg's own decoders of these drop the transparency; the others keep it.
_KEEPING_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Opened:
    """An open file: its container, its video stream, and the header of a picture (empty for a video)."""

    container: Any
    stream: Any
    header: Header
    name: str

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()


def open_source(source: str | os.PathLike[str] | bytes, name: str, *, one_picture: bool = False) -> Opened:
    """Open a video or a picture, from a path or bytes.

    Args:
        name: what errors call it.
        one_picture: only a file of one picture will do.

    Raises ClipError ``missing``, ``unreadable``, ``no_video`` or ``several_pictures``.
    """
    av = require("av", extra="data")
    from av.stream import Disposition

    header, source, options = _prepared(source, name, one_picture)
    options["options"] = {"format_whitelist": ",".join(_SELF_CONTAINED)}
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        container = av.open(source, **options)
    except av.error.ArgumentError as error:  # of any other format; of one that only the name tells, too
        raise ClipError(
            "unreadable", f"{name}: {_NO_PICTURE}, nor a video file that holds its own frames."
        ) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = f"a {header.kind} picture" if header.kind else "a video"
        raise ClipError(
            "unreadable",
            f"{name}: cannot be opened as {what} ({_cause(error)}); not one, or cut off before its index.",
        ) from error
    # FFmpeg draws a text file as a picture: that is a pose file in the wrong place, not a video.
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams or container.format.name == "tty":
        container.close()
        raise ClipError("no_video", f"{name}: holds no video stream.")
    return Opened(container, streams[0], header, name)


def _prepared(
    source: str | os.PathLike[str] | bytes, name: str, one_picture: bool
) -> tuple[Header, str | bytes, dict[str, Any]]:
    """The header of a picture, what FFmpeg is to open, and how."""
    if not isinstance(source, bytes):
        path = Path(source)
        if not path.exists():
            raise ClipError("missing", f"{name}: no such file.")
        if path.stat().st_size == 0:
            raise ClipError("unreadable", f"{name}: the file is empty.")
        try:
            with path.open("rb") as file:
                head = file.read(16)
            # Bytes, to look into them, and because FFmpeg takes some names of pictures for a pattern.
            source = path.read_bytes() if picture_kind(head) or is_gif(head) else str(path)
        except OSError as error:
            raise ClipError("unreadable", f"{name}: cannot be read ({_cause(error)}).") from error
    elif not source:
        raise ClipError("unreadable", f"{name}: no bytes.")
    if isinstance(source, bytes) and is_gif(source) and not gif_is_whole(source):
        raise ClipError("truncated", f"{name}: the GIF ends before its end mark; truncated.")
    header = read_header(source) if isinstance(source, bytes) else Header()
    if one_picture and not header.kind:
        raise ClipError("unreadable", f"{name}: {_NO_PICTURE}; take it away.")
    if header.kind in ("HEIC", "AVIF sequence"):
        raise ClipError("unreadable", f"{name}: {header.kind} is not supported; convert it to JPEG or PNG.")
    if header.cut:
        raise ClipError(
            "corrupt", f"{name}: the {header.kind} ends before its end mark; truncated or damaged."
        )
    if header.unsupported:
        raise ClipError(
            "unreadable",
            f"{name}: a {header.kind} {header.unsupported} is not supported; convert it to PNG.",
        )
    if header.pages > 1:
        if header.kind == "PNG" and not one_picture:
            return Header(), source, {"format": "apng"}  # an animation: frames with times, as of a GIF
        what = {"PNG": "an animated PNG", "WebP": "an animated WebP"}.get(
            header.kind, f"a {header.kind} of {header.pages} pages"
        )
        remedy = "a file a picture, or a video" if header.kind == "WebP" else "a file a picture"
        raise ClipError("several_pictures", f"{name}: is {what}, which is not supported; write {remedy}.")
    return header, source, {}


def _cause(error: Exception) -> str:
    """FFmpeg's words without the number and the file name that PyAV adds."""
    return getattr(error, "strerror", None) or str(error)


def decoded(opened: Opened) -> Iterator[Any]:
    """The av.VideoFrame of every picture that is to be presented.

    Raises ClipError ``corrupt`` for a damaged picture, ``truncated`` where pictures are missing; the latter
    only at the end.
    """
    av = require("av", extra="data")
    container, stream, name = opened.container, opened.stream, opened.name
    decoder = _decoder(opened)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    count, hidden, lost, presented, shown = 0, 0, 0, [], set()
    # AVI has no times of presentation, and FFmpeg makes them up in the order of decoding.
    places = deque() if _unordered(opened) else None
    starts_whole, failure = None, None
    first = end = 0.0
    packets = container.demux(stream)
    while not (opened.header.kind and count):  # what may follow a picture in its file is of no concern
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if packet.pts is not None and (places is not None or not packet.size):
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.pts is not None and not packet.size:
                # The picture before stays for longer, in Theora. A decoder would take it for the end.
                continue
            if starts_whole is None:
                starts_whole = packet.is_keyframe or bool(opened.header.kind)
            if packet.size:
                hidden += packet.is_discard
                if not packet.is_discard and packet.pts is not None:
                    presented.append(packet.pts)
                    if places is not None:
                        places.append(packet.pts)
            pictures = decoder.decode(packet if packet.size or decoder is stream else None)
        except av.error.FFmpegError as error:
            if count == 0 and starts_whole is False:
                # A recording that begins between two key frames: what refers to lost ones cannot be decoded.
                lost, failure = lost + 1, error
                continue
            raise ClipError(
                "corrupt" if opened.header.kind else "truncated",
                f"{name}: decoding fails after {count} frames ({_cause(error)}); truncated or damaged.",
            ) from error
        for picture in pictures:
            if picture.is_corrupt:
                raise ClipError("corrupt", f"{name}: frame {count} is damaged.")
            shown.add(picture.pts)
            if places:
                picture.pts = places.popleft()
            stamp = picture.time if picture.time is not None else first + count / rate
            first = stamp if count == 0 else first
            end = max(end, stamp + 1.0 / rate)
            if count == 0 and picture.pts is not None and places is None:
                presented = [stamp for stamp in presented if stamp >= picture.pts]
            yield picture
            count += 1
    if count == 0:
        cause = f" ({_cause(failure)})" if failure else ""
        raise ClipError("no_frames", f"{name}: holds no frames{cause}.")
    if opened.header.kind:
        return
    _check_complete(opened, count + hidden, first, end)
    if places is not None:
        presented = _without_leading(presented, shown)
    if stream.codec_context.name in ("h264", "hevc") and len(presented) - count > 0 and not lost:
        raise ClipError(
            "corrupt", f"{name}: {len(presented)} frames are stored, only {count} can be decoded; damaged."
        )


def _unordered(opened: Opened) -> bool:
    """Whether the times of the packets say when they are decoded, not when they are presented."""
    context = opened.stream.codec_context
    return opened.container.format.name == "avi" and context.name in ("h264", "hevc")


def _without_leading(stored: Sequence[int], shown: Collection[int]) -> list[int]:
    """Stored pictures in the order of decoding, without those around the first key frame that are not shown.

    Those behind it refer to what came before it, which was cut off.
    """
    found = [index for index, stamp in enumerate(stored) if stamp in shown]
    following = found[1] if len(found) > 1 else len(stored)
    return [*(stored[index] for index in found[:1]), *stored[following:]]


def _decoder(opened: Opened) -> Any:
    """What decodes the packets: the stream itself, or a codec context."""
    av = require("av", extra="data")
    stream = opened.stream
    context = stream.codec_context
    if context.name in _KEEPING_ALPHA and stream.metadata.get("alpha_mode") == "1":
        return av.codec.CodecContext.create(_KEEPING_ALPHA[context.name], "r")
    # Threads work on several frames ahead, which a single picture has no use for.
    stream.thread_type = "SLICE" if opened.header.kind else "AUTO"
    # Damaged pictures of H.264 are marked, and it must begin at any recovery point. TIFF's decoder would take
    # a tag that it does not know for an error: it refuses cut files in any case, but not rubbish inside one.
    if context.name not in ("h264", "tiff"):
        context.options = {**context.options, "err_detect": "crccheck+explode"}
    return stream


def count_presented(opened: Opened) -> int | None:
    """Pictures of a video from its packets alone; None where that takes decoding.

    Raises ClipError ``truncated`` when there are fewer than the container announces.
    """
    av = require("av", extra="data")
    container, stream = opened.container, opened.stream
    certain = stream.codec_context.name in _ONE_TO_ONE and stream.metadata.get("alpha_mode") != "1"
    certain &= not (_unordered(opened) and stream.codec_context.has_b_frames)
    count, hidden, first, start, end = 0, 0, None, 0.0, 0.0
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None:
                return None
            if first is None:
                first = packet.pts
                certain &= packet.is_keyframe
                start = float(first * packet.time_base)
            if packet.is_discard:
                hidden += 1
                continue
            # Pictures that come before the first key frame refer to one that is not there.
            certain &= packet.pts >= first
            if not certain:
                return None
            count += 1
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except av.error.FFmpegError as error:
        raise ClipError(
            "truncated",
            f"{opened.name}: cannot be read beyond frame {count} ({_cause(error)}); truncated or damaged.",
        ) from error
    if not count:
        return None
    _check_complete(opened, count + hidden, start, end)
    return count


def _check_complete(opened: Opened, count: int, first: float, end: float) -> None:
    """Raise ClipError ``truncated`` if less is there than was announced.

    Args:
        count: frames that are there, those that are not presented among them.
        first, end: time of the first presented frame and of the end of the last one, in seconds.
    """
    container, stream, name = opened.container, opened.stream, opened.name
    announced, duration = stream.frames, (container.duration or 0) / 1e6
    missing = duration - end  # some containers count from 0, some from the first frame
    if announced and announced - count > max(2, _TRUNCATION_TOLERANCE * announced):
        # AVI counts places in time, of which some may be empty.
        rate = float(stream.average_rate or 25)
        if container.format.name == "avi" and missing * rate <= max(2, _TRUNCATION_TOLERANCE * announced):
            return
        raise ClipError(
            "truncated", f"{name}: announces {announced} frames, only {count} are there; truncated."
        )
    if not announced and missing > max(0.5, 0.05 * duration):
        raise ClipError(
            "truncated", f"{name}: announces {duration:.2f} s, its frames end after {end:.2f} s; truncated."
        )
