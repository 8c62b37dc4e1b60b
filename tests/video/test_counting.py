"""Frames are counted as they are presented, in every container, whatever was cut without encoding."""

from __future__ import annotations

import dataclasses
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from camctrl_jax.errors import ClipError
from camctrl_jax.video.containers import decoded, open_source
from camctrl_jax.video.decoding import count_frames, read_frames, resample

RATE, FRAMES = 30, 120


def numbered(path, codec: str = "libx264", frames: int = FRAMES, **options) -> None:
    """A video whose k-th frame has the brightness 2 k, a key frame every 60.

    64 rows, because x265 writes beyond its memory with fewer.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.gop_size = 60
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 2 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def packets_of(container, stream) -> list:
    """All packets. Matroska does not say when the first ones are to be decoded: just before the next."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    for packet, following in reversed(list(zip(packets, packets[1:], strict=False))):
        if packet.dts is None:
            packet.dts = following.dts - 1
    return packets


def trimmed(source, target, start: float, end: float = 1e9) -> None:
    """Packets from the key frame before ``start`` to ``end``, times counted from ``start``, nothing encoded.

    Times before 0 become an edit list where a container has them: what comes before is there, but hidden.
    """
    with av.open(str(source)) as reading:
        stream = reading.streams.video[0]
        origin = stream.start_time or 0
        packets = packets_of(reading, stream)
        seconds = [float((packet.pts - origin) * packet.time_base) for packet in packets]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe and seconds[i] <= start + 1e-6]
        hides = reading.format.name.startswith("mov")
        with av.open(str(target), "w") as writing:
            copy = writing.add_stream_from_template(stream)
            first = packets[keys[-1]]
            shift = origin + round(start / stream.time_base) if hides else first.dts
            for packet, second in zip(packets[keys[-1] :], seconds[keys[-1] :], strict=True):
                if second >= end:
                    break
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                writing.mux(packet)


def numbers(path) -> list[int]:
    """Which frames of :func:`numbered` a video presents, by their brightness."""
    return [round(float(frame.rgb().mean()) / 2) for frame in read_frames(path)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize(("start", "first"), [(1.0, 30), (0.05, 2), (2.0, 60), (3.9, 117)])
def test_what_an_edit_list_hides_is_not_counted(tmp_path, suffix, bframes, start, first):
    numbered(tmp_path / f"base{suffix}", **{"x264-params": f"bframes={bframes}:scenecut=0"})
    path = tmp_path / f"trimmed{suffix}"
    trimmed(tmp_path / f"base{suffix}", path, start)
    found = numbers(path)
    np.testing.assert_allclose(found, np.arange(first, FRAMES), atol=1)
    assert count_frames(path) == len(found)
    frames = list(read_frames(path))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(found)) / RATE, atol=2e-3)
    assert [frame.index for frame in frames] == list(range(len(found)))


CONTAINERS = [
    *(("libx264", suffix) for suffix in (".mp4", ".mov", ".mkv", ".ts", ".flv", ".avi")),
    *(("libx265", suffix) for suffix in (".mp4", ".mkv")),
    *(("mpeg4", suffix) for suffix in (".mp4", ".avi", ".mkv")),
    *(("mpeg2video", suffix) for suffix in (".mpg", ".ts", ".mkv")),
    *(("libvpx-vp9", suffix) for suffix in (".webm", ".mp4")),
    ("libvpx", ".webm"),
]


@pytest.mark.parametrize(("codec", "suffix"), CONTAINERS)
def test_the_count_is_what_is_read(tmp_path, codec, suffix):
    options = {
        "libx265": {"x265-params": "log-level=none"},
        "libvpx": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"},
        "libvpx-vp9": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"},
        "mpeg4": {"bf": "2"},
        "mpeg2video": {"bf": "2"},
    }.get(codec, {})
    base = tmp_path / f"base{suffix}"
    numbered(base, codec, **options)
    assert count_frames(base) == len(list(read_frames(base))) == FRAMES
    if suffix == ".avi":
        return  # which has no times of presentation to cut at
    for start, end in ((1.0, 1e9), (0.05, 1e9), (0.0, 1.5), (2.03, 3.0)):
        path = tmp_path / f"trimmed{suffix}"
        trimmed(base, path, start, end)
        found = sum(1 for _ in read_frames(path))
        assert count_frames(path) == found
        assert 0 < found <= FRAMES


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("start", [1.0, 0.05])
def test_a_trimmed_file_that_is_cut_off_is_still_refused(tmp_path, share, start):
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "base.mp4"), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 60
        for _ in range(FRAMES):
            picture = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "base.mp4").read_bytes()
    # The edit list begins later: media time is the sixth field of its box.
    place = content.index(b"elst")
    (time,) = struct.unpack_from(">i", content, place + 16)
    with av.open(str(tmp_path / "base.mp4")) as container:
        later = time + round(start / container.streams.video[0].time_base)
    content = content[: place + 16] + struct.pack(">i", later) + content[place + 20 :]
    path = tmp_path / "cut.mp4"
    path.write_bytes(content)
    assert count_frames(path) == sum(1 for _ in read_frames(path)) == FRAMES - round(start * RATE + 0.4)
    path.write_bytes(content[: int(share * len(content))])
    for call in (count_frames, lambda source: list(read_frames(source))):
        with pytest.raises(ClipError) as caught:
            call(path)
        assert caught.value.reason == "truncated"


def delayed(source, target, seconds: float) -> None:
    """The same packets, later."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        for packet in packets_of(reading, stream):
            packet.pts += round(seconds / packet.time_base)
            packet.dts += round(seconds / packet.time_base)
            packet.stream = copy
            writing.mux(packet)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webm"])
def test_a_late_beginning_is_no_loss(tmp_path, suffix):
    codec = {".avi": "mpeg4", ".webm": "libvpx"}.get(suffix, "libx264")
    numbered(tmp_path / f"base{suffix}", codec, frames=90)
    delayed(tmp_path / f"base{suffix}", tmp_path / f"late{suffix}", 2.0)
    path = tmp_path / f"late{suffix}"
    assert count_frames(path) == 90
    frames = list(read_frames(path))
    assert len(frames) == 90
    assert frames[0].time == 0.0
    if suffix != ".avi":  # whose first frame is at 0 in any case
        assert len(list(resample(frames, RATE, "late"))) == 90


def test_an_avi_cut_at_an_open_group_is_read_in_order(tmp_path):
    numbered(tmp_path / "base.ts", **{"x264-params": "open-gop=1:scenecut=0:keyint=30:bframes=3"})
    path = tmp_path / "cut.avi"
    with av.open(str(tmp_path / "base.ts")) as reading, av.open(str(path), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        packets = packets_of(reading, stream)
        keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        leading = sum(packet.pts < packets[keys[1]].pts for packet in packets[keys[1] :])
        for packet in packets[keys[1] :]:
            packet.stream = copy
            writing.mux(packet)
    assert leading > 0
    frames = list(read_frames(path))
    assert len(frames) == len(packets) - keys[1] - leading == count_frames(path)
    found = [float(frame.rgb().mean()) / 2 for frame in frames]
    np.testing.assert_allclose(found, np.arange(FRAMES - len(found), FRAMES), atol=1.5)
    times = [frame.time for frame in frames]
    np.testing.assert_allclose(times, np.arange(len(found)) / RATE, atol=1e-6)


class Repeating:
    """A container with empty packets between the others, as Ogg has them where Theora repeats a picture."""

    def __init__(self, container):
        self.format, self.duration, self._container = container.format, container.duration, container

    def demux(self, stream):
        for packet in self._container.demux(stream):
            yield packet
            if packet.size:
                empty = av.Packet()
                empty.stream, empty.time_base = stream, packet.time_base
                empty.pts = empty.dts = packet.pts + 1
                yield empty


def test_empty_packets_do_not_end_a_video(tmp_path):
    numbered(tmp_path / "a.mkv", "mpeg4", frames=30)
    with open_source(tmp_path / "a.mkv", "a.mkv") as opened:
        frames = list(decoded(dataclasses.replace(opened, container=Repeating(opened.container))))
    assert len(frames) == 30
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / RATE, atol=1e-3)


def test_a_cut_matroska_file_is_refused_by_its_length(tmp_path):
    numbered(tmp_path / "a.mkv", **{"x264-params": "scenecut=0"})
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    for call in (count_frames, lambda source: list(read_frames(source))):
        with pytest.raises(ClipError) as caught:
            call(tmp_path / "a.mkv")
        assert caught.value.reason == "truncated"


def test_a_cover_picture_is_not_the_video(tmp_path):
    numbered(tmp_path / "base.mp4", frames=20)
    path = tmp_path / "a.mp4"
    with av.open(str(tmp_path / "base.mp4")) as reading, av.open(str(path), "w") as writing:
        cover = writing.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        copy = writing.add_stream_from_template(reading.streams.video[0])
        writing.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        writing.mux(cover.encode())
        for packet in reading.demux(video=0):
            if packet.size:
                packet.stream = copy
                writing.mux(packet)
    assert count_frames(path) == 20
    assert next(read_frames(path)).size == (64, 96)
