"""Media look as they are meant to: upright, not mirrored, with square pixels, opaque, in BT.709."""

from __future__ import annotations

import io
import math
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from pattern_videos import pattern_video

from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.orientation import Orientation
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import count_frames, read_frames, read_image, read_video
from camctrl_jax.video.encoding import encode_mp4
from camctrl_jax.video.headers import EXIF_ORIENTATIONS
from camctrl_jax.video.looks import WHITE_REMARK

Image = pytest.importorskip("PIL.Image", reason="Pillow is the oracle")
ImageOps = pytest.importorskip("PIL.ImageOps")


def blocks(height: int = 3, width: int = 5, side: int = 16) -> np.ndarray:
    """u8 [height * side, width * side, 3] without any symmetry, of squares that codecs keep."""
    picture = np.random.default_rng(0).integers(40, 216, (height, width, 3)).astype(np.uint8)
    return picture.repeat(side, 0).repeat(side, 1)


def encoded(picture: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    image = Image.fromarray(picture)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def first(source) -> object:
    return next(read_frames(source))


def apart(found: np.ndarray, truth: np.ndarray) -> float:
    assert found.shape == truth.shape
    return float(np.abs(found.astype(float) - truth).mean())


def raw_video(
    path, planes: list[np.ndarray], pix_fmt: str, frames: int = 1, codec: str = "ffv1", **tags
) -> None:
    """A lossless video of planes, with tags of colour or ``sample_aspect_ratio``."""
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index in range(frames):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
                rows[:, : values.shape[1]] = values
                plane.update(rows.tobytes())
            for name in ("color_trc", "color_primaries", "colorspace", "color_range"):
                if name in tags:
                    setattr(frame, name, tags[name])
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


# Orientation.


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
    ],
    ids=["jpeg", "png", "tiff", "webp", "lossy_webp"],
)
def test_pictures_are_shown_as_exif_says(tmp_path, kind, options, value):
    exif = Image.Exif()
    exif[274] = value
    content = encoded(blocks(), kind, exif=exif, **options)
    truth = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(content)
    frame = first(path)
    assert (frame.size, frame.stored_size) == (truth.shape[:2], (48, 80))
    assert frame.orientation == EXIF_ORIENTATIONS[value]
    assert bool(frame.remarks) == (value != 1)
    assert apart(frame.rgb(), truth) < (0.01 if kind in ("PNG", "TIFF") else 2.0)
    # Pillow turns TIFF by itself.
    stored = blocks() if kind == "TIFF" else np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(frame.orientation.apply(stored), truth)


def test_a_big_endian_exif_and_a_value_that_does_not_exist():
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 5, 0, 0)
    content = encoded(blocks(), "JPEG", exif=exif, quality=95)
    assert first(content).orientation == Orientation(1, True)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 9, 0, 0)
    assert first(encoded(blocks(), "JPEG", exif=exif)).orientation == Orientation()
    cut = b"Exif\0\0MM\0*" + struct.pack(">IHH", 8, 9, 274)
    assert first(encoded(blocks(), "JPEG", exif=cut)).orientation == Orientation()


def with_matrix(content: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """An mp4 with another display matrix: what is at (x, y) is shown at (a x + c y, b x + d y), y down."""
    place = content.index(b"tkhd") + 44
    values = [round(a * 65536), round(b * 65536), 0, round(c * 65536), round(d * 65536), 0, 0, 0, 1 << 30]
    return content[:place] + struct.pack(">9i", *values) + content[place + 36 :]


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda video: video),
        ((-1, 0, 0, 1), lambda video: video[:, :, ::-1]),
        ((1, 0, 0, -1), lambda video: video[:, ::-1]),
        ((-1, 0, 0, -1), lambda video: video[:, ::-1, ::-1]),
        ((0, 1, 1, 0), lambda video: video.transpose(0, 2, 1, 3)),
        ((0, 1, -1, 0), lambda video: np.rot90(video, -1, axes=(1, 2))),
        ((0, -1, 1, 0), lambda video: np.rot90(video, 1, axes=(1, 2))),
        ((0, -1, -1, 0), lambda video: np.rot90(video, 2, axes=(1, 2)).transpose(0, 2, 1, 3)),
    ],
)
def test_videos_are_shown_as_their_display_matrix_says(matrix, shown):
    video = pattern_video(3, 32, 48)
    content = with_matrix(encode_mp4(video, 12.0, crf=1), *matrix)
    truth = shown(video)
    frame = first(content)
    assert (frame.size, frame.stored_size) == (truth.shape[1:3], (32, 48))
    assert apart(read_video(content), truth) < 1.5
    np.testing.assert_array_equal(frame.orientation.apply(video), truth)
    height, width = truth.shape[1:3]
    framed = read_video(content, framing=Framing.cover((height, width), (height // 2, width // 2)))
    half = truth.reshape(3, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4))
    assert apart(framed, half) < 2.0


def test_other_angles_are_taken_to_the_nearest_turn_with_a_remark():
    content = encode_mp4(pattern_video(2, 32, 48), 12.0)
    cos, sin = math.cos(math.radians(80)), math.sin(math.radians(80))
    frame = first(with_matrix(content, cos, -sin, sin, cos))
    assert frame.orientation == Orientation(1)
    assert any("80 degrees" in remark for remark in frame.remarks)
    assert first(with_matrix(content, 0, 0, 0, 0)).orientation == Orientation()
    assert first(with_matrix(content, 2, 0, 0, 2)).remarks == ()  # a scale is no turn


# Pixels that are not square.


def circle(height: int, width: int, aspect: float) -> np.ndarray:
    """u8 [height, width] with a disc that is round once a pixel is ``aspect`` as wide as high."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    radius = 0.4 * min(height, width * aspect)
    inside = (rows - height / 2) ** 2 + ((columns - width / 2) * aspect) ** 2 < radius**2
    return np.where(inside, 220, 30).astype(np.uint8)


def roundness(picture: np.ndarray) -> float:
    """Width over height of the bright disc, from its second moments."""
    rows, columns = np.nonzero(picture[..., 1] > 125)
    return float(columns.std() / rows.std())


ASPECTS = [(480, 720, "32/27"), (270, 360, "4/3"), (240, 360, "8/9"), (288, 176, "24/11"), (200, 300, "1/2")]


@pytest.mark.parametrize(("height", "width", "aspect"), ASPECTS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_circles_stay_circles(tmp_path, height, width, aspect, suffix):
    aspect = Fraction(aspect)
    grey = circle(height, width, float(aspect))
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    path = tmp_path / f"a{suffix}"
    raw_video(path, [grey, chroma, chroma], "yuv420p", codec="libx264", sample_aspect_ratio=aspect)
    frame = first(path)
    assert frame.stored_size == (height, width)
    # The short side grows, so that no pixel is lost.
    wide = aspect > 1
    assert frame.size == ((height, round(width * aspect)) if wide else (round(height / aspect), width))
    assert roundness(grey[..., None].repeat(3, -1)) != pytest.approx(1.0, abs=0.05)
    assert roundness(frame.rgb()) == pytest.approx(1.0, abs=0.01)
    assert any(f"{aspect.numerator}:{aspect.denominator}" in remark for remark in frame.remarks)
    framing = Framing.cover(frame.size, (128, 128))
    assert roundness(frame.rgb(framing)) == pytest.approx(1.0, abs=0.01)
    # Focal lengths in pixels are equal after the framing when they are as shown.
    shown = np.array([200 / frame.size[1], 200 / frame.size[0], 0.5, 0.5])
    fx, fy, *_ = framing.intrinsics(shown)
    assert fx * 128 == pytest.approx(fy * 128, rel=0.01)


def test_mpeg2_says_its_aspect_in_the_stream(tmp_path):
    grey, chroma = circle(480, 720, 32 / 27), np.full((240, 360), 128, np.uint8)
    path = tmp_path / "a.mpg"
    raw_video(
        path,
        [grey, chroma, chroma],
        "yuv420p",
        3,
        "mpeg2video",
        sample_aspect_ratio=Fraction(32, 27),
        rate=25,
    )
    assert first(path).size == (480, 853)
    assert roundness(read_image(path)) == pytest.approx(1.0, abs=0.01)


def test_pixels_are_made_square_before_the_turn(tmp_path):
    grey, chroma = circle(120, 160, 1.5), np.full((60, 80), 128, np.uint8)
    path = tmp_path / "a.mp4"
    raw_video(path, [grey, chroma, chroma], "yuv420p", codec="libx264", sample_aspect_ratio=Fraction(3, 2))
    frame = first(with_matrix(path.read_bytes(), 0, 1, -1, 0))
    assert (frame.size, frame.stored_size) == ((240, 120), (120, 160))
    assert roundness(frame.rgb()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("aspect", "remarks"), [("1/1", 0), ("1000/1001", 0), ("1/40", 1), ("50/1", 1)])
def test_aspects_that_mean_nothing_change_nothing(tmp_path, aspect, remarks):
    grey, chroma = circle(120, 160, 1.0), np.full((60, 80), 128, np.uint8)
    path = tmp_path / "a.mp4"
    raw_video(path, [grey, chroma, chroma], "yuv420p", codec="libx264", sample_aspect_ratio=Fraction(aspect))
    assert first(path).size == (120, 160)
    assert len(first(path).remarks) == remarks


def jfif(content: bytes, unit: int, x: int, y: int) -> bytes:
    place = content.index(b"JFIF\0") + 7
    return content[:place] + struct.pack(">BHH", unit, x, y) + content[place + 5 :]


@pytest.mark.parametrize(
    ("unit", "x", "y", "size"),
    [
        (0, 1, 1, (48, 80)),
        (1, 72, 72, (48, 80)),
        (1, 300, 299, (48, 80)),  # rounding
        (0, 4, 3, (48, 107)),  # an aspect, as video tools write it
        (1, 300, 150, (96, 80)),  # dots an inch: twice as many across make a pixel half as wide
        (2, 60, 120, (48, 160)),
        (0, 0, 1, (48, 80)),
        (1, 1, 100, (48, 80)),  # not believed
    ],
)
def test_densities_of_jpeg_are_an_aspect_only_where_they_differ(unit, x, y, size):
    assert first(jfif(encoded(blocks(), "JPEG"), unit, x, y)).size == size


def test_densities_of_png(tmp_path):
    assert first(encoded(blocks(), "PNG", dpi=(72, 72))).size == (48, 80)
    assert first(encoded(blocks(), "PNG", dpi=(300, 150))).size == (96, 80)


# Colour.

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.58, 0.75, 0.9, 1.0)


def patches(colours: np.ndarray, matrix: str) -> list[np.ndarray]:
    """Planes of yuv444p10, limited range, a square of 16 pixels for each R'G'B' in [0, 1]."""
    red, green, blue = {"bt2020": (0.2627, 0.6780, 0.0593), "bt709": (0.2126, 0.7152, 0.0722)}[matrix]
    luma = colours @ (red, green, blue)
    cb = (colours[:, 2] - luma) / (2 - 2 * blue)
    cr = (colours[:, 0] - luma) / (2 - 2 * red)
    planes = 64 + 876 * luma, 512 + 896 * cb, 512 + 896 * cr
    return [np.round(plane).astype(np.uint16)[None].repeat(16, 0).repeat(16, 1) for plane in planes]


def shown_patches(path) -> np.ndarray:
    return read_image(path)[8, 8::16].astype(float)


def hlg_light(values: np.ndarray) -> np.ndarray:
    """BT.2100: light in cd/m2 of an HLG signal on a screen of 1000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return 1000 * scene * (scene @ (0.2627, 0.6780, 0.0593))[:, None] ** 0.2


def pq_light(values: np.ndarray) -> np.ndarray:
    """BT.2100: light in cd/m2 of a PQ signal."""
    root = values ** (32 / 2523)
    return 10000 * (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


FROM_2020 = np.array(  # BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def bt709(light: np.ndarray) -> np.ndarray:
    """Levels of 255 of BT.2020 light, 1 being white, on a screen of BT.1886."""
    return 255 * np.clip(light @ FROM_2020.T, 0, 1) ** (1 / 2.4)


COLOURS = np.array(
    [
        *([level] * 3 for level in LEVELS),
        *(
            [0.5, 0.4, 0.4],
            [0.3, 0.45, 0.35],
            [0.4, 0.42, 0.52],
            [0.55, 0.5, 0.3],
            [0.45, 0.35, 0.4],
            [0.4, 0.5, 0.42],
        ),
    ]
)


@pytest.mark.parametrize(("trc", "light"), [(18, hlg_light), (16, pq_light)], ids=["hlg", "pq"])
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "only_the_curve"])
def test_hdr_is_brought_to_bt709_with_diffuse_white_as_white(tmp_path, trc, light, tagged):
    tags = {"color_primaries": 9, "colorspace": 9} if tagged else {}
    path = tmp_path / "a.mkv"
    raw_video(path, patches(COLOURS, "bt2020"), "yuv444p10le", 2, color_trc=trc, color_range=1, **tags)
    truth = bt709(light(COLOURS) / 203)
    found = shown_patches(path)
    assert np.abs(found - truth).max() < 3.5
    naive = 255 * COLOURS
    assert np.abs(naive - truth).max() > 30  # what the test would miss is large
    (remark,) = first(path).remarks
    assert ("HLG" if trc == 18 else "PQ") in remark
    assert "BT.709" in remark
    assert "203" in remark
    white = 0.75 if trc == 18 else 0.5807  # BT.2408
    assert bt709(light(np.full((1, 3), white)) / 203)[0, 0] == pytest.approx(255, abs=0.5)
    assert np.abs(found[LEVELS.index(0.75)] - 255).max() <= 2.0


def test_hdr_is_the_same_through_a_framing(tmp_path):
    path = tmp_path / "a.mkv"
    tags = {"color_trc": 18, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    raw_video(path, patches(np.full((8, 3), 0.5), "bt2020"), "yuv444p10le", 1, **tags)
    framed = read_video(path, framing=Framing.cover((16, 128), (8, 64)))
    truth = bt709(hlg_light(np.full((1, 3), 0.5)) / 203)[0, 0]
    assert np.abs(framed - truth).max() < 2


def test_bt2020_of_ordinary_range_changes_primaries_only(tmp_path):
    path = tmp_path / "a.mkv"
    tags = {"color_trc": 14, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    raw_video(path, patches(COLOURS, "bt2020"), "yuv444p10le", 1, **tags)
    assert np.abs(shown_patches(path) - bt709(COLOURS**2.4)).max() < 3
    assert first(path).remarks == ("BT.2020 colours converted to BT.709",)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_ten_bits_of_bt709_are_left_alone(tmp_path, full):
    path = tmp_path / "a.mkv"
    planes = patches(COLOURS, "bt709")
    if full:
        planes = [
            np.round((planes[0] - 64.0) / 876 * 1023).astype(np.uint16),
            *(np.round(512 + (plane - 512.0) / 896 * 1023).astype(np.uint16) for plane in planes[1:]),
        ]
    tags = {"color_trc": 1, "color_primaries": 1, "colorspace": 1, "color_range": 2 if full else 1}
    raw_video(path, planes, "yuv444p10le", 1, **tags)
    assert np.abs(shown_patches(path) - 255 * COLOURS).max() < 1.5
    assert first(path).remarks == ()


def test_matrices_without_a_way_to_rgb_are_refused_by_name(tmp_path):
    path = tmp_path / "a.mkv"
    raw_video(path, patches(COLOURS, "bt2020"), "yuv444p10le", 1, color_trc=16, colorspace=14, color_range=1)
    with pytest.raises(ClipError, match=r"a\.mkv.*ICtCp.*convert") as caught:
        first(path)
    assert caught.value.reason == "colour"


def test_display_p3_pictures_are_converted(tmp_path):
    ImageCms = pytest.importorskip("PIL.ImageCms")
    # An sRGB profile whose colourants are exchanged for Display P3's.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    colourants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12):
        name, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if name in colourants:
            struct.pack_into(">3i", profile, offset + 8, *(round(65536 * each) for each in colourants[name]))
    picture = blocks()
    image = Image.fromarray(picture)
    source = ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile)))
    truth = np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), 1))
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(picture, kind, icc_profile=bytes(profile), **options)
        assert apart(first(content).rgb(), truth) < 0.7
        assert first(content).remarks == ("Display P3 colours converted to BT.709",)
    assert apart(picture, truth) > 4
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert first(encoded(picture, "PNG", icc_profile=srgb)).remarks == ()


# Transparency.


def with_hole(picture: np.ndarray) -> np.ndarray:
    """RGBA: the left quarter is hidden, the next one half visible."""
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    quarter = picture.shape[1] // 4
    alpha[:, :quarter], alpha[:, quarter : 2 * quarter] = 0, 128
    return np.dstack([picture, alpha])


def on_white(rgba: np.ndarray) -> np.ndarray:
    canvas = Image.new("RGBA", rgba.shape[1::-1], (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(canvas, Image.fromarray(rgba)).convert("RGB"))


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]
)
def test_transparent_parts_are_white(kind, options):
    rgba = with_hole(blocks())
    frame = first(encoded(rgba, kind, **options))
    assert np.abs(frame.rgb().astype(int) - on_white(rgba)).max() <= 1
    assert frame.remarks == (WHITE_REMARK,)
    rgba[..., 3] = 255
    frame = first(encoded(rgba, kind, **options))
    np.testing.assert_array_equal(frame.rgb(), rgba[..., :3])
    assert frame.remarks == ()


def test_hidden_colours_do_not_bleed_through_a_framing():
    rgba = with_hole(np.zeros((48, 80, 3), np.uint8))
    rgba[:, :20, :3] = (0, 255, 0)
    framed = read_video(encoded(rgba, "PNG"), framing=Framing.cover((48, 80), (24, 40)))[0].astype(int)
    assert np.abs(framed[..., 1] - framed[..., 0]).max() <= 1


def test_palettes_and_grey_with_transparency():
    grey = with_hole(blocks())
    grey[..., :3] = grey[..., :1]
    frame = first(encoded(grey, "PNG", mode="LA"))
    truth = on_white(np.asarray(Image.fromarray(grey).convert("LA").convert("RGBA")))
    assert np.abs(frame.rgb().astype(int) - truth).max() <= 1
    palette = Image.fromarray(blocks()).quantize(16)
    for kind in ("PNG", "GIF"):
        buffer = io.BytesIO()
        palette.save(buffer, kind, transparency=3)
        truth = on_white(np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGBA")))
        frame = first(buffer.getvalue())
        np.testing.assert_array_equal(frame.rgb(), truth)
        assert frame.remarks == (WHITE_REMARK,)
        buffer = io.BytesIO()
        palette.save(buffer, kind)
        assert first(buffer.getvalue()).remarks == ()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("libvpx-vp9", "yuva420p", ".webm"), ("libvpx", "yuva420p", ".webm"), ("qtrle", "argb", ".mov")],
)
def test_videos_with_transparency(tmp_path, codec, pix_fmt, suffix):
    rgba = with_hole(blocks())
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "b": "2M", "auto-alt-ref": "0"} if suffix == ".webm" else {}
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 80, pix_fmt
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(read_frames(path))
    assert len(frames) == 3
    assert all(frame.remarks == (WHITE_REMARK,) for frame in frames)
    assert apart(frames[1].rgb(), on_white(rgba)) < 4.0
    assert frames[1].rgb()[:, :16].min() >= 250
    assert count_frames(path) == 3


# Other ways to store a picture.


def test_grey_deep_cmyk_and_one_bit_pictures_have_their_values():
    deep = (np.arange(32 * 48).reshape(32, 48) * 42).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = first(encoded(deep, kind)).rgb()
        assert np.abs(found - deep[..., None] / 257).max() <= 1.5
    picture = blocks()
    for mode, kind in (
        ("L", "PNG"),
        ("L", "JPEG"),
        ("1", "PNG"),
        ("1", "TIFF"),
        ("P", "PNG"),
        ("CMYK", "TIFF"),
    ):
        truth = np.asarray(Image.fromarray(picture).convert(mode).convert("RGB"))
        frame = first(encoded(picture, kind, mode=mode))
        assert np.abs(frame.rgb().astype(int) - truth).max() <= 2
        assert frame.remarks == ()
    content = encoded(picture, "JPEG", mode="CMYK", quality=100, subsampling=0)
    truth = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(first(content).rgb().astype(int) - truth).max() <= 2
    assert apart(first(encoded(picture, "TIFF", mode="YCbCr")).rgb(), picture) < 1.5


@pytest.mark.parametrize("size", [40, 56, 108, 124])
def test_the_unused_byte_of_a_bmp_is_not_transparency(size):
    picture = blocks()
    height, width = picture.shape[:2]
    unused = (np.arange(height * width) % 256).astype(np.uint8).reshape(height, width, 1)
    pixels = np.concatenate([picture[..., ::-1], unused], axis=2)[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 0, len(pixels), 2835, 2835, 0, 0)
    header += bytes(size - 40)
    start = 14 + len(header)
    content = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels
    frame = first(content)
    np.testing.assert_array_equal(frame.rgb(), picture)
    assert frame.remarks == ()


def test_large_pictures_without_tags_are_not_taken_for_video():
    picture = blocks(5, 8, side=160)
    assert apart(first(encoded(picture, "JPEG", quality=95)).rgb(), picture) < 1.5
    assert apart(first(encoded(picture, "WEBP", quality=95)).rgb(), picture) < 2.5
