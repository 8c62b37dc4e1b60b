"""What decoders complain of is no picture; what is no picture is named; what players accept is read."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from pattern_videos import pattern_video

from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import count_frames, list_images, read_frames, read_image, read_video

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the pictures")


def noisy(frames: int = 1, height: int = 96, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-20, 21, (frames, height, width, 3))
    return np.clip(pattern_video(frames, height, width) + noise, 0, 255).astype(np.uint8)


def encoded(picture: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(source) -> ClipError:
    with pytest.raises(ClipError) as caught:
        list(read_frames(source))
    return caught.value


PICTURES = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "restarts": ("JPEG", {"quality": 90, "restart_marker_rows": 1}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless_webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw_tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_cut_pictures_are_refused(tmp_path, kind, share):
    name, options = PICTURES[kind]
    content = encoded(noisy()[0], name, **options)
    path = tmp_path / "a.img"
    path.write_bytes(content)
    assert read_image(path).shape == (96, 128, 3)
    path.write_bytes(content[: int(share * len(content))])
    error = refusal(path)
    assert error.reason in ("corrupt", "unreadable")
    assert "a.img" in str(error)


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_pictures_with_rubbish_inside_are_refused(kind):
    name, options = PICTURES[kind]
    content = bytearray(encoded(noisy()[0], name, **options))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes((7 * value + 13) % 256 for value in content[middle : middle + 40])
    assert refusal(bytes(content)).reason == "corrupt"


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "restarts"])
def test_a_jpeg_that_was_allocated_but_not_written_to_its_end_is_refused(kind):
    name, options = PICTURES[kind]
    content = encoded(noisy()[0], name, **options)
    for share in (0.4, 0.6, 0.99):
        size = int(share * len(content))
        assert refusal(content[:size] + bytes(len(content) - size)).reason == "corrupt"
    np.testing.assert_array_equal(read_image(content + bytes(512)), read_image(content))


@pytest.mark.parametrize("frames", [1, 4])
def test_cut_gifs_are_refused(tmp_path, frames):
    first, *others = (Image.fromarray(picture) for picture in noisy(frames))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=100)
    content = buffer.getvalue()
    path = tmp_path / "a.gif"
    path.write_bytes(content + b"appended")
    assert len(list(read_frames(path))) == count_frames(path) == frames
    for size in (len(content) // 2, len(content) * 9 // 10, len(content) - 1):
        path.write_bytes(content[:size])
        for call in (count_frames, read_image):
            with pytest.raises(ClipError, match=r"a\.gif") as caught:
                call(path)
            assert caught.value.reason == "truncated"


@pytest.mark.parametrize("kind", PICTURES)
def test_what_follows_a_picture_in_its_file_does_not_matter(kind):
    name, options = PICTURES[kind]
    content = encoded(noisy()[0], name, **options)
    np.testing.assert_array_equal(read_image(content + b"appended by a camera" * 9), read_image(content))


def test_a_cut_picture_of_a_folder_is_named(tmp_path):
    for index, picture in enumerate(noisy(5)):
        (tmp_path / f"{index}.jpg").write_bytes(encoded(picture, "JPEG", quality=90))
    content = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(content[: len(content) // 2])
    error = refusal(tmp_path)
    assert error.reason == "corrupt"
    assert "3.jpg" in str(error)


def video_of(codec: str, container: str, frames: np.ndarray, pix_fmt: str = "yuv420p", **options) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.gop_size = 12
        for picture in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


CODECS = [
    ("libx264", "mp4"),
    ("libx264", "matroska"),
    ("libx265", "mp4"),
    ("mpeg4", "avi"),
    ("libsvtav1", "mp4"),
]


@pytest.mark.parametrize(("codec", "container"), CODECS)
def test_a_damaged_frame_in_the_middle_is_refused(codec, container):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    content = video_of(codec, container, noisy(48), **options)
    assert len(list(read_frames(content))) == 48
    with av.open(io.BytesIO(content)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    place, size = places[24]
    # All but the first bytes: no decoder can make sense of it.
    rubbish = np.random.default_rng(1).integers(0, 256, size - min(40, size // 3)).astype(np.uint8).tobytes()
    start = place + size - len(rubbish)
    damaged = content[:start] + rubbish + content[start + len(rubbish) :]
    assert refusal(damaged).reason in ("corrupt", "truncated")


def recording(tmp_path, codec: str, first: int, **options) -> tuple[object, np.ndarray]:
    """A transport stream without its first packets, as a receiver that was switched on late writes it."""
    content = video_of(codec, "mpegts", noisy(48), **options)
    path = tmp_path / "late.ts"
    with av.open(io.BytesIO(content)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size and index >= first:
                packet.stream = stream
                target.mux(packet)
    return path, read_video(content)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
def test_recordings_that_begin_between_key_frames_are_read_from_the_next_one(tmp_path, codec):
    options = {"x265-params": "log-level=none:open-gop=0"} if codec == "libx265" else {}
    path, whole = recording(tmp_path, codec, 5, **options)
    pictures = read_video(path)
    assert 48 - 12 <= len(pictures) < 48
    assert count_frames(path) == len(pictures)
    np.testing.assert_array_equal(pictures, whole[48 - len(pictures) :])


def test_open_groups_of_pictures_are_read(tmp_path):
    path, whole = recording(tmp_path, "libx264", 12, **{"x264-params": "open-gop=1:scenecut=0:bframes=3"})
    pictures = read_video(path)
    assert len(pictures) >= 20
    assert count_frames(path) == len(pictures)
    np.testing.assert_array_equal(pictures, whole[48 - len(pictures) :])


def test_hidden_files_are_no_pictures(tmp_path):
    for index, picture in enumerate(noisy(3)):
        (tmp_path / f"{index}.png").write_bytes(encoded(picture, "PNG"))
        (tmp_path / f"._{index}.png").write_bytes(b"\0\5\x16\7" + bytes(500))
    (tmp_path / ".hidden.jpg").write_bytes(b"rubbish")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"rubbish")
    assert [path.name for path in list_images(tmp_path)] == ["0.png", "1.png", "2.png"]
    assert count_frames(tmp_path) == 3
    np.testing.assert_array_equal(read_video(tmp_path), noisy(3))
    assert [frame.name for frame in read_frames(tmp_path)] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>404</body></html>" * 20,
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(1000),
        b"\0",
    ],
)
def test_files_that_only_bear_the_name_of_a_picture_are_named(tmp_path, content):
    (tmp_path / "0.png").write_bytes(encoded(noisy()[0], "PNG"))
    (tmp_path / "1.png").write_bytes(content)
    error = refusal(tmp_path)
    assert error.reason == "unreadable"
    assert "1.png" in str(error)
    assert "not a picture" in str(error)


@pytest.mark.parametrize("content", [b"<html><body>404</body></html>" * 20, b"not found\n"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp", ".bmp"])
def test_a_text_by_the_name_of_a_picture_is_no_picture(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert f"a{suffix}: its content is not a picture" in str(error)


def test_folders_are_no_pictures_and_numbers_count(tmp_path):
    (tmp_path / "frame_3.png").mkdir()
    for name in ("Frame_10.png", "frame_2.PNG", "frame_9.jpg", "frame_\u00b2.png"):
        (tmp_path / name).write_bytes(b"")
    found = [path.name for path in list_images(tmp_path)]
    assert found == ["frame_2.PNG", "frame_9.jpg", "Frame_10.png", "frame_\u00b2.png"]


def test_a_video_is_not_a_picture_of_a_folder(tmp_path):
    (tmp_path / "0.png").write_bytes(video_of("libx264", "mp4", noisy(5)))
    assert "not a picture" in str(refusal(tmp_path))


def test_names_that_lie_about_the_kind_or_look_like_patterns_do_not_matter(tmp_path):
    picture = noisy()[0]
    for name in ("lies.jpg", "frame_%03d.png", "a:b.png", "[1].png"):
        path = tmp_path / name
        path.write_bytes(encoded(picture, "PNG"))
        np.testing.assert_array_equal(read_image(path), picture)


def several(kind: str, **options) -> bytes:
    first, *others = (Image.fromarray(picture) for picture in noisy(4, 32, 48))
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "words"), [("WEBP", "animated WebP"), ("TIFF", "TIFF of 4 pages"), ("PNG", "animated PNG")]
)
def test_files_of_several_pictures_are_named_in_folders(tmp_path, kind, words):
    (tmp_path / f"0.{kind.lower()}").write_bytes(several(kind))
    error = refusal(tmp_path)
    assert error.reason == "several_pictures"
    assert words in str(error)
    if kind != "PNG":
        assert words in str(refusal(tmp_path / f"0.{kind.lower()}"))


def test_an_animated_png_is_read_as_a_video(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(several("PNG", duration=100))
    np.testing.assert_array_equal(read_video(path), noisy(4, 32, 48))
    assert count_frames(path) == 4
    assert [frame.time for frame in read_frames(path)] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_small_copies_inside_a_tiff_are_not_pages():
    # The subfile tag marks a page as a reduced copy of another one.
    page = encoded(noisy()[0], "TIFF", tiffinfo={254: 1})
    assert read_image(page).shape == (96, 128, 3)
    both = io.BytesIO()
    small = Image.fromarray(noisy()[0, ::4, ::4])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(noisy()[0]).save(both, "TIFF", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(both.getvalue()), noisy()[0])


@pytest.mark.parametrize(
    ("mode", "options", "words"),
    [
        ("RGB", {"compression": "jpeg"}, "with JPEG compression"),
        ("L", {"compression": "jpeg"}, "with JPEG compression"),
        ("RGB", {"compression": "zstd"}, "with Zstandard compression"),
        ("LAB", {}, "in L*a*b* colours"),
        ("F", {}, "of floating point numbers"),
    ],
)
def test_tiffs_that_would_be_read_wrongly_are_refused_by_name(tmp_path, mode, options, words):
    picture = Image.fromarray(noisy()[0])
    picture = Image.new("LAB", picture.size, (90, 40, 200)) if mode == "LAB" else picture.convert(mode)
    path = tmp_path / "a.tiff"
    picture.save(path, **options)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert f"a.tiff: a TIFF {words} is not supported" in str(error)


def test_a_tiff_with_a_number_a_channel_is_read_where_it_is_of_one_kind():
    # Three sample formats do not fit into the entry of their tag: 3 is floating point.
    floats = encoded(noisy()[0], "TIFF", tiffinfo={339: (3, 3, 3)})
    assert "floating point" in str(refusal(floats))
    np.testing.assert_array_equal(
        read_image(encoded(noisy()[0], "TIFF", tiffinfo={339: (1, 1, 1)})), noisy()[0]
    )


@pytest.mark.parametrize(
    ("brand", "words"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avis", "AVIF sequence")]
)
def test_formats_that_are_not_supported_are_named(tmp_path, brand, words):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(500))
    error = refusal(path)
    assert error.reason == "unreadable"
    assert words in str(error)
    assert "convert" in str(error)


def test_a_change_of_size_is_named():
    parts = [video_of("libx264", "mpegts", noisy(6, *size)) for size in ((96, 128), (64, 96))]
    error = refusal(b"".join(parts))
    assert error.reason == "mixed_sizes"
    assert "64x96" in str(error)
