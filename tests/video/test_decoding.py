"""Video files: what goes in comes out, and what cannot be used says why."""

from __future__ import annotations

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from pattern_videos import pattern_video

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import (
    count_frames,
    list_images,
    read_frames,
    read_image,
    read_video,
    resample,
)
from camctrl_jax.video.encoding import encode_mp4, write_mp4


def reason(call, *arguments, **options) -> str:
    """Why ``call`` refuses; a generator is run to its end."""
    try:
        result = call(*arguments, **options)
        if hasattr(result, "__next__"):
            list(result)
    except ClipError as error:
        return error.reason
    return "no ClipError"


def write_image(path, picture: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("size", [(48, 80), (47, 81), (34, 49)])
def test_round_trip_keeps_frames_and_colours(size):
    video = pattern_video(9, *size)
    back = read_video(encode_mp4(video, 12.0), size=size)
    assert back.shape == video.shape
    difference = back.astype(float) - video
    assert np.abs(difference).mean() < 1.5
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 0.8  # no channel is brighter or darker


def test_odd_sizes_are_padded_by_repeating_the_edge():
    back = read_video(encode_mp4(pattern_video(1, 33, 49), 12.0, crf=1))
    assert back.shape == (1, 34, 50, 3)
    assert np.abs(back[:, 33].astype(int) - back[:, 32]).mean() < 3
    assert np.abs(back[:, :, 49].astype(int) - back[:, :, 48]).mean() < 3


def test_encoding_is_reproducible():
    video = pattern_video(5, 32, 32)
    assert encode_mp4(video, 12.0) == encode_mp4(video, 12.0)


def test_frames_have_a_size_and_a_time(tmp_path):
    write_mp4(tmp_path / "a.mp4", pattern_video(24, 32, 48), fps=12)
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert {frame.size for frame in frames} == {(32, 48)}
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(24) / 12)
    assert count_frames(tmp_path / "a.mp4") == 24


def test_windows_are_the_frames_asked_for():
    content = encode_mp4(pattern_video(13, 32, 32), 12.0)
    whole = read_video(content)
    np.testing.assert_array_equal(read_video(content, start=4, frames=5), whole[4:9])
    assert reason(read_video, content, start=9, frames=5) == "too_short"


def test_writing_replaces_a_file_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, pattern_video(5, 32, 32), fps=12)
    before = path.read_bytes()

    class Broken:
        def __array__(self, *arguments, **options):
            raise OSError("disk on fire")

    with pytest.raises(OSError, match="on fire"):
        write_mp4(path, Broken(), fps=12)
    with pytest.raises(ValueError, match="u8"):
        write_mp4(path, np.zeros((2, 32, 32, 3), np.float32), fps=12)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_truncated_files_are_told_from_whole_ones(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, pattern_video(60, 64, 64), fps=12)  # index in front: it opens, then ends early
    content = path.read_bytes()
    for share in (0.5, 0.8):
        path.write_bytes(content[: int(share * len(content))])
        assert reason(read_frames, path) == "truncated"
        assert reason(count_frames, path) == "truncated"
    path.write_bytes(encode_mp4(pattern_video(9, 32, 32), 12.0)[:-200])  # index at the end: it does not open
    assert reason(read_frames, path) in ("unreadable", "no_video")


def test_files_that_are_no_videos_say_so(tmp_path):
    assert reason(read_frames, tmp_path / "none.mp4") == "missing"
    (tmp_path / "empty.mp4").touch()
    assert reason(read_frames, tmp_path / "empty.mp4") == "unreadable"
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    assert reason(read_frames, tmp_path / "text.mp4") == "unreadable"
    assert reason(read_frames, b"") == "unreadable"
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    assert reason(read_frames, tmp_path / "sound.wav") == "no_video"
    save_cameras(preset("dolly_in", 9), tmp_path / "path.txt")  # FFmpeg would draw the text
    assert reason(read_frames, tmp_path / "path.txt") == "no_video"
    (tmp_path / "folder").mkdir()
    assert reason(read_frames, tmp_path / "folder") == "no_frames"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "list.m3u8"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_file_that_lists_others_opens_none_of_them(tmp_path, text, name):
    write_mp4(tmp_path / "secret.mp4", pattern_video(5, 32, 32), fps=12)
    (tmp_path / name).write_text(text)
    assert reason(read_frames, tmp_path / name) == "unreadable"


def test_errors_name_the_file(tmp_path):
    (tmp_path / "text.mp4").write_text("x" * 100)
    with pytest.raises(ClipError, match=r"text\.mp4"):
        list(read_frames(tmp_path / "text.mp4"))
    with pytest.raises(ClipError, match="clip 7"):
        list(read_frames(b"rubbish", name="clip 7"))


def variable_rate_video(path, times: list[float]) -> None:
    """Frames at the given times, the i-th of brightness 4 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(1000))
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_resampling_goes_by_time_stamps(tmp_path):
    # 30 frames a second, then 60: equal steps in time are unequal steps in frames.
    times = [i / 30 for i in range(30)] + [1.0 + i / 60 for i in range(30)]
    variable_rate_video(tmp_path / "vfr.mp4", times)
    picked = list(resample(read_frames(tmp_path / "vfr.mp4"), 10.0, "vfr"))
    assert [frame.index for frame in picked] == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 36, 42, 48, 54]
    assert [frame.time for frame in picked] == pytest.approx([i / 10 for i in range(15)])
    levels = [frame.rgb().mean() for frame in picked]
    np.testing.assert_allclose(levels, [4 * frame.index for frame in picked], atol=3)


def test_equal_rates_keep_every_frame_and_too_low_ones_are_refused():
    content = encode_mp4(pattern_video(25, 32, 32), 12.0)
    assert [frame.index for frame in resample(read_frames(content), 12.0, "a")] == list(range(25))
    assert reason(resample, read_frames(content), 24.0, "a") == "low_frame_rate"


def test_ntsc_rates_are_not_refused():
    content = encode_mp4(pattern_video(60, 16, 16), 24000 / 1001)
    assert len(list(resample(read_frames(content), 24.0, "ntsc"))) == 60


def test_image_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    video = pattern_video(12, 20, 30)
    for i, picture in enumerate(video):
        write_image(tmp_path / f"frame_{i}.png", picture)
    (tmp_path / "notes.txt").write_text("not an image")
    assert [path.name for path in list_images(tmp_path)] == [f"frame_{i}.png" for i in range(12)]
    np.testing.assert_array_equal(read_video(tmp_path), video)
    np.testing.assert_array_equal(read_image(tmp_path / "frame_3.png"), video[3])
    frames = list(read_frames(tmp_path, image_fps=6.0))
    assert [frame.time for frame in frames] == pytest.approx([i / 6 for i in range(12)])
    assert count_frames(tmp_path) == 12
    write_image(tmp_path / "frame_12.png", video[0, :10])
    assert reason(read_frames, tmp_path) == "mixed_sizes"


def test_phone_videos_are_turned_upright(tmp_path):
    video = pattern_video(3, 32, 48)
    content = bytearray(encode_mp4(video, 12.0, crf=1))
    # The display matrix in the track header: a quarter turn clockwise, as a phone held upright writes it.
    header = content.index(b"tkhd") + 4
    matrix = header + 40
    fixed = [0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big") for value in fixed)
    upright = read_video(bytes(content))
    assert upright.shape == (3, 48, 32, 3)
    clockwise = np.rot90(video, k=-1, axes=(1, 2))
    assert np.abs(upright.astype(float) - clockwise).mean() < 1.5
    framed = read_video(bytes(content), framing=Framing.cover((48, 32), (24, 16)))
    half = clockwise.reshape(3, 24, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(framed - half).mean() < 2.0


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mov"])
def test_other_containers(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if suffix == ".avi" else "libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for picture in pattern_video(14, 32, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert count_frames(path) == 14
    assert read_video(path).shape == (14, 32, 32, 3)
    assert len(list(resample(read_frames(path), 12.0, "a"))) == 14


def test_a_real_video(test_data):
    path = test_data("vipe_dog/dog-example.mp4")
    assert next(read_frames(path)).size == (720, 1280)
    assert count_frames(path) == 122
    picked = list(resample(read_frames(path), 12.0, "dog"))
    assert len(picked) == 49
    np.testing.assert_allclose(np.diff([frame.index for frame in picked]), 2.5, atol=0.51)


def test_a_picture_fills_a_size_with_its_middle(tmp_path):
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = 200  # what a square takes of it
    write_image(tmp_path / "wide.png", picture)
    assert read_image(tmp_path / "wide.png").shape == (40, 120, 3)
    filled = read_image(tmp_path / "wide.png", fill=(20, 20))
    assert filled.shape == (20, 20, 3)
    assert filled[:, 2:-2].min() > 190
