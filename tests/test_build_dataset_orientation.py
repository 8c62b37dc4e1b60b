"""build_dataset --poses-of: cameras of turned and mirrored pictures, told by where a point appears."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from camctrl_jax.build_dataset.__main__ import main
from camctrl_jax.camera import Cameras, preset, save_cameras
from camctrl_jax.data.clips import open_clips
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import encode_mp4

FRAMES, HEIGHT, WIDTH = 5, 64, 96  # as stored
POINT = np.array([0.35, -0.25, 2.5])
# The four numbers of a display matrix, and EXIF's number for the same.
CLOCKWISE, MIRRORED, HALF_TURN, TRANSPOSED = (0, 1, -1, 0), (-1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, 1, 0)
EXIF = {CLOCKWISE: 6, MIRRORED: 2, HALF_TURN: 3, TRANSPOSED: 5}
TURNED, REFLECTED = (CLOCKWISE, TRANSPOSED), (MIRRORED, TRANSPOSED)


def stored_path() -> Cameras:
    """Nothing about it is symmetric."""
    return dataclasses.replace(
        preset("orbit_left", FRAMES),
        intrinsics=np.tile([0.8, 1.1, 0.45, 0.56], (FRAMES, 1)),
        metric=False,
        times=None,
    )


def seen_at(cameras: Cameras, point: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where the point appears in each picture: x, y in pixels [T, 2]."""
    local = np.einsum("tij,j->ti", cameras.camera_from_world, np.append(point, 1.0))[:, :3]
    fx, fy, cx, cy = cameras.intrinsics.T
    x, y = fx * local[:, 0] / local[:, 2] + cx, fy * local[:, 1] / local[:, 2] + cy
    return np.stack([x * width, y * height], axis=1)


def stored_pictures() -> np.ndarray:
    """A bright spot where the point is, u8 [T, H, W, 3]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    places = seen_at(stored_path(), POINT, HEIGHT, WIDTH)
    spots = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18.0) for u, v in places]
    return np.repeat((20 + 200 * np.stack(spots)).astype(np.uint8)[..., None], 3, axis=3)


def spots_of(video: np.ndarray) -> np.ndarray:
    """Where the bright spot is, x, y in pixels [T, 2]."""
    light = np.clip(video.astype(float).mean(axis=3) - 60, 0, None)
    y, x = np.mgrid[: video.shape[1], : video.shape[2]] + 0.5
    total = light.sum(axis=(1, 2))
    return np.stack([(light * x).sum(axis=(1, 2)) / total, (light * y).sum(axis=(1, 2)) / total], axis=1)


def write_video(path, matrix):
    content = bytearray(encode_mp4(stored_pictures(), 12.0, crf=1))
    a, b, c, d = ((value << 16) & 0xFFFFFFFF for value in matrix)
    place = content.index(b"tkhd") + 44
    numbers = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[place : place + 36] = b"".join(value.to_bytes(4, "big") for value in numbers)
    path.write_bytes(content)


def write_folder(path, matrix):
    path.mkdir()
    for i, picture in enumerate(stored_pictures()):
        exif = Image.Exif()
        exif[0x0112] = EXIF[matrix]
        Image.fromarray(picture).save(path / f"{i}.jpg", quality=97, subsampling=0, exif=exif)


def build(tmp_path, source, poses, matrix, *options):
    height, width = (WIDTH, HEIGHT) if matrix in TURNED else (HEIGHT, WIDTH)
    arguments = ["videos", "--source", source, "--poses", poses, "--out", tmp_path / "set", "--overwrite"]
    arguments += [
        "--height",
        height,
        "--width",
        width,
        "--frames",
        FRAMES,
        "--min-frames",
        FRAMES,
        "--crf",
        1,
    ]
    assert main([*map(str, arguments), *options]) == 0
    (clip,) = open_clips(tmp_path / "set")
    return clip, json.loads((tmp_path / "set" / "report.json").read_text())


def check_the_point(clip, matrix):
    """Each camera sees the point where its picture shows it; a mirror turns the world."""
    video = read_video(clip.video)
    point = POINT * (-1, 1, 1) if matrix in REFLECTED else POINT
    np.testing.assert_allclose(seen_at(clip.cameras, point, *video.shape[1:3]), spots_of(video), atol=0.6)


@pytest.mark.parametrize("write", [write_video, write_folder])
@pytest.mark.parametrize("matrix", [CLOCKWISE, MIRRORED, HALF_TURN, TRANSPOSED])
@pytest.mark.parametrize(("format", "file"), [("colmap", "model"), ("realestate10k", "a.txt")])
def test_poses_of_stored_pictures_become_those_of_shown_ones(tmp_path, write, matrix, format, file):
    source = tmp_path / ("walk.mp4" if write is write_video else "walk")
    write(source, matrix)
    names = [f"{i}.jpg" for i in range(FRAMES)]
    save_cameras(stored_path(), tmp_path / file, format, image_size=(HEIGHT, WIDTH), names=names)
    clip, _ = build(tmp_path, source, tmp_path / file, matrix, "--poses-of", "stored")
    check_the_point(clip, matrix)


@pytest.mark.parametrize("matrix", [CLOCKWISE, TRANSPOSED])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (480, 832)])
def test_the_size_in_the_pose_file_tells(tmp_path, matrix, size):
    """COLMAP that ran on the stored pictures, or on copies of half their size or of about their shape."""
    write_video(tmp_path / "walk.mp4", matrix)
    save_cameras(stored_path(), tmp_path / "model", "colmap", image_size=size)
    clip, report = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "model", matrix)
    check_the_point(clip, matrix)
    assert any("belong to them before that, by their size" in each for each in report["remarks_on_poses"])
    # The same poses as those of the shown pictures: taken as they are.
    clip, _ = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "model", matrix, "--poses-of", "shown")
    np.testing.assert_allclose(clip.cameras.world_from_camera, stored_path().world_from_camera, atol=1e-6)


@pytest.mark.parametrize("matrix", [CLOCKWISE, MIRRORED, HALF_TURN])
def test_what_cannot_be_told_is_taken_as_shown_with_a_remark(tmp_path, matrix):
    write_video(tmp_path / "walk.mp4", matrix)
    save_cameras(stored_path(), tmp_path / "walk.txt", "realestate10k")
    clip, report = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "walk.txt", matrix)
    np.testing.assert_allclose(clip.cameras.world_from_camera, stored_path().world_from_camera, atol=1e-6)
    assert any("--poses-of stored" in each for each in report["remarks_on_poses"])


def test_poses_of_the_shown_size_need_no_remark(tmp_path):
    write_video(tmp_path / "walk.mp4", CLOCKWISE)
    save_cameras(stored_path(), tmp_path / "model", "colmap", image_size=(WIDTH, HEIGHT))
    clip, report = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "model", CLOCKWISE)
    np.testing.assert_allclose(clip.cameras.world_from_camera, stored_path().world_from_camera, atol=1e-6)
    assert not any("poses-of" in each for each in report["remarks_on_poses"])


def test_plain_pictures_take_their_poses_either_way(tmp_path):
    (tmp_path / "walk.mp4").write_bytes(encode_mp4(stored_pictures(), 12.0, crf=1))
    save_cameras(stored_path(), tmp_path / "model", "colmap", image_size=(HEIGHT, WIDTH))
    for choice in ("auto", "shown", "stored"):
        clip, report = build(
            tmp_path, tmp_path / "walk.mp4", tmp_path / "model", (1, 0, 0, 1), "--poses-of", choice
        )
        check_the_point(clip, (1, 0, 0, 1))
        assert not any("poses-of" in each for each in report["remarks_on_poses"])


def write_mixed_folder(path, matrices):
    """Each picture as stored, with its own turn."""
    path.mkdir()
    for i, (picture, matrix) in enumerate(zip(stored_pictures(), matrices)):
        exif = Image.Exif()
        exif[0x0112] = 1 if matrix is None else EXIF[matrix]
        Image.fromarray(picture).save(path / f"{i}.jpg", quality=97, subsampling=0, exif=exif)


MIXED = [
    pytest.param([None, None, None, HALF_TURN, HALF_TURN], id="upright first"),
    pytest.param([HALF_TURN, HALF_TURN, HALF_TURN, None, None], id="upright last"),
    pytest.param([None, HALF_TURN, None, HALF_TURN, None], id="in turns"),
]


def save_named_path(tmp_path):
    names = [f"{i}.jpg" for i in range(FRAMES)]
    save_cameras(stored_path(), tmp_path / "model", "colmap", image_size=(HEIGHT, WIDTH), names=names)


@pytest.mark.parametrize("matrices", MIXED)
def test_pictures_turned_in_different_ways_have_their_cameras_turned_one_by_one(tmp_path, matrices):
    write_mixed_folder(tmp_path / "walk", matrices)
    save_named_path(tmp_path)
    clip, _ = build(tmp_path, tmp_path / "walk", tmp_path / "model", HALF_TURN, "--poses-of", "stored")
    check_the_point(clip, HALF_TURN)


@pytest.mark.parametrize("matrices", MIXED)
def test_any_turned_picture_is_remarked_on_where_its_poses_cannot_be_told(tmp_path, matrices):
    write_mixed_folder(tmp_path / "walk", matrices)
    save_named_path(tmp_path)
    clip, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", HALF_TURN)
    np.testing.assert_allclose(clip.cameras.world_from_camera, stored_path().world_from_camera, atol=1e-6)
    assert sum("--poses-of stored for before" in each for each in report["remarks_on_poses"]) == 1


@pytest.mark.parametrize("matrices", [[None, None, None, MIRRORED, None], [MIRRORED, None, None, None, None]])
def test_pictures_of_which_some_are_mirrored_have_no_poses_as_stored(tmp_path, matrices):
    """A mirror turns the world over, and a clip has one."""
    write_mixed_folder(tmp_path / "walk", matrices)
    save_named_path(tmp_path)
    with pytest.raises(AssertionError):
        build(tmp_path, tmp_path / "walk", tmp_path / "model", HALF_TURN, "--poses-of", "stored")
    (skipped,) = json.loads((tmp_path / "set.failed.json").read_text())["skipped"]
    assert skipped["reason"] == "mixed_orientations"


@pytest.mark.parametrize("size", [(48, 72), (64, 96)])
@pytest.mark.parametrize(("dpi", "aspect"), [((100, 200), 2.0), ((200, 100), 0.5)])
def test_pixels_that_are_not_square_are_those_that_are_stored(tmp_path, size, dpi, aspect):
    """transforms.json in pixels without a picture size: as tools measure them, in the file that is there."""
    height, width = size
    (tmp_path / "walk").mkdir()
    frames = []
    for i in range(FRAMES):
        Image.new("RGB", (width, height), (40 * i, 90, 90)).save(tmp_path / "walk" / f"{i}.png", dpi=dpi)
        pose = np.eye(4)
        pose[0, 3] = i
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    lens = {"fl_x": 60.0, "fl_y": 60.0, "cx": 0.4 * width, "cy": 0.5 * height}
    poses = tmp_path / "poses.json"
    poses.write_text(json.dumps({**lens, "frames": frames}))
    shown = (height, 2 * width) if aspect == 2 else (2 * height, width)

    def lens_of(*options):
        arguments = ["videos", "--source", tmp_path / "walk", "--poses", poses, "--out", tmp_path / "set"]
        arguments += ["--height", 2 * shown[0], "--width", 2 * shown[1], "--overwrite"]
        arguments += ["--frames", FRAMES, "--min-frames", FRAMES, *options]
        assert main([*map(str, arguments)]) == 0
        (clip,) = open_clips(tmp_path / "set")
        told = json.loads((tmp_path / "set" / "report.json").read_text())["remarks_on_poses"]
        return clip.cameras.intrinsics[0], [each for each in told if "not square" in each]

    stored = [60.0 / width, 60.0 / height, 0.4, 0.5]
    found, told = lens_of()
    np.testing.assert_allclose(found, stored, rtol=1e-5)
    assert f"{height}x{width}, not as shown, {shown[0]}x{shown[1]}" in told[0]
    found, told = lens_of("--poses-of", "stored")
    np.testing.assert_allclose(found, stored, rtol=1e-5)
    assert not told
    found, told = lens_of("--poses-of", "shown")
    lens_shown = [60.0 / shown[1], 60.0 / shown[0], 0.4 * width / shown[1], 0.5 * height / shown[0]]
    np.testing.assert_allclose(found, lens_shown, rtol=1e-5)
    found, told = lens_of("--image-size", f"{height}x{width}")
    np.testing.assert_allclose(found, stored, rtol=1e-5)
    assert not told
    poses.write_text(json.dumps({"w": width, "h": height, **lens, "frames": frames}))
    found, told = lens_of()
    np.testing.assert_allclose(found, stored, rtol=1e-5)
    assert not told
