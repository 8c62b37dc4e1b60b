"""Formats: what survives a round trip of any path, what a format refuses, and how it says so."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import paths, properties

from camctrl_jax.camera import CameraError, Cameras, preset
from camctrl_jax.camera.description import describe_file
from camctrl_jax.camera.formats import (
    FORMATS,
    PoseFileError,
    detect_format,
    format_named,
    load_cameras,
    read_pose_file,
    save_cameras,
)
from camctrl_jax.errors import FileFailure, UserError

SIZE = (48, 80)
FORMAT_NAMES = [pose_format.name for pose_format in FORMATS if pose_format.write is not None]
READ_ONLY = [pose_format.name for pose_format in FORMATS if pose_format.write is None]
FLOAT32 = ("lingbot", "gsplat")


@pytest.mark.parametrize("name", FORMAT_NAMES)
@properties
@given(cameras=paths(), folder=st.integers(0, 2**40))
def test_any_path_survives_what_the_format_can_hold(tmp_path, name, cameras, folder):
    if name == "recammaster":
        cameras = dataclasses.replace(cameras, metric=True)
    target = tmp_path / str(folder) / "path.anything"  # detection must not need the suffix
    save_cameras(cameras, target, name, image_size=SIZE)
    found, pose_file = read_pose_file(target, image_size=SIZE)
    again = pose_file.cameras
    assert found.name == name
    tolerance = 2e-6 if name in FLOAT32 else 1e-9
    np.testing.assert_allclose(again.world_from_camera, cameras.world_from_camera, atol=tolerance)
    if "intrinsics" in found.holds:
        np.testing.assert_allclose(again.intrinsics, cameras.intrinsics, rtol=tolerance)
        assert pose_file.intrinsics_from == "file"
    else:
        np.testing.assert_array_equal(again.intrinsics, np.tile((0.6, 1.0, 0.5, 0.5), (len(cameras), 1)))
        assert pose_file.intrinsics_from.startswith("default")
    if cameras.times is not None and "times" in found.holds:
        np.testing.assert_allclose(np.diff(again.times), np.diff(cameras.times), atol=2e-6)
    assert again.metric == (cameras.metric and "metric" in found.holds)


def test_every_format_is_named_once_and_states_its_convention():
    names = [pose_format.name for pose_format in FORMATS]
    assert len(set(names)) == len(names) == 18
    assert all("axes" in pose_format.convention for pose_format in FORMATS)


@pytest.mark.parametrize("name", READ_ONLY)
def test_formats_that_are_only_read_refuse_before_writing(tmp_path, name):
    with pytest.raises(UserError, match=rf"files of the format {name} are only read; write one of realest"):
        save_cameras(preset("static", 2), tmp_path / "x", name, image_size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="unknown pose format 'nerf'; known are realestate10k, tum"):
        save_cameras(preset("static", 2), tmp_path / "x", "nerf")


@pytest.mark.parametrize(
    "name",
    ["colmap", "colmap_text", "transforms_json", "open3d_json", "opensfm", "gsplat", "worldplay", "ac3d"],
)
def test_formats_in_pixels_ask_for_the_size_before_writing(tmp_path, name):
    with pytest.raises(CameraError, match=r"stores intrinsics in pixels: pass image_size=\(height, width\)"):
        save_cameras(preset("dolly_in", 3), tmp_path / "x", name)
    assert list(tmp_path.iterdir()) == []


def test_centimetre_format_refuses_a_path_of_unknown_unit(tmp_path):
    unknown = dataclasses.replace(preset("dolly_in", 3), metric=False)
    with pytest.raises(CameraError, match=r"centimetres, but the unit of this path is unknown.*--metric"):
        save_cameras(unknown, tmp_path / "x.json", "recammaster")


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    target = tmp_path / "path.txt"
    save_cameras(preset("dolly_in", 3), target)
    before = target.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileFailure, match=r"path\.txt: the disk is full"):
        save_cameras(preset("dolly_in", 99), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"nowhere/clip.txt: no such file or folder"):
        load_cameras("nowhere/clip.txt")


def test_asking_for_another_format_than_the_files(tmp_path):
    save_cameras(preset("dolly_in", 3), tmp_path / "path.txt", "tum")
    with pytest.raises(PoseFileError, match=r"does not look like realestate10k .*leave --from .* out"):
        load_cameras(tmp_path / "path.txt", format="realestate10k")


# --- broken files: the message names the file, the place, the value, the expectation ---------------------

HEADER = "https://www.youtube.com/watch?v=0\n"
GOOD = "1000 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n"
SECOND = GOOD.replace("1000", "2000")

BROKEN_TEXT = {
    "a value short": (
        HEADER + GOOD + SECOND.rsplit(" ", 1)[0] + "\n",
        r"line 3: holds 18 values, expected 19: time, fx/W",
    ),
    "a word": (HEADER + GOOD + SECOND.replace("0.9", "O.9"), r"line 3: 'O.9' is not a number"),
    "NaN pose": (
        HEADER + GOOD + SECOND.replace("1 0\n", "1 nan\n"),
        r"line 3: the pose holds NaN or infinity",
    ),
    "zero rotation": (
        HEADER + GOOD + "2000 0.5 0.9 0.5 0.5 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        r"line 3: the rotation is singular",
    ),
    "not orthonormal": (
        HEADER + GOOD + "2000 0.5 0.9 0.5 0.5 0 0 1 0.05 0 0 0 1 0 0 0 0 1 0\n",
        r"line 3: the rotation is not orthonormal: \|R\^T R - I\| reaches 0.05",
    ),
    "one mirror": (
        HEADER + GOOD + "2000 0.5 0.9 0.5 0.5 0 0 -1 0 0 0 0 1 0 0 0 0 1 0\n",
        r"line 3: the rotation has determinant -1.000",
    ),
    "pixels": (
        HEADER + "2000 640 640 640 360 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n",
        r"line 2: the intrinsics \(640, 640, 640, 360\) look like pixels; .*image_size=\(height, width\)",
    ),
    "pixels among fractions": (
        HEADER + GOOD + "2000 640 640 640 360 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n",
        r"line 3: the intrinsics \(640, 640, 640, 360\) look like pixels; those of other lines are fractions",
    ),
    "header only": (HEADER, r"line 2: holds no poses; expected one line per frame"),
    "TUM, quaternion not unit": (
        "1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 2\n",
        r"line 2: the quaternion \(.*\) has length 2",
    ),
    "TUM, NaN quaternion": (
        "1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 nan\n",
        r"line 2: the quaternion .* has length nan",
    ),
    "TUM, short line": (
        "# c\n1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 1\n3 0 0 0\n",
        r"line 4: holds 4 values, expected 8",
    ),
    "log cut short": (
        "0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n",
        r"line 1: the matrix after it has 3 rows, expected 4",
    ),
    "nothing": ("", r"is empty; expected a camera path"),
    "prose": (
        "Once upon a time\nthere was a camera\n",
        r"is not a pose file of a known format: it is text whose line 1",
    ),
    "JSON cut short": ('{"frames": [', r"line 1, column 1\d: broken JSON"),
    "JSON of something else": ('{"a": 1}', r"is not a pose file of a known format"),
    "transforms without frames": ('{"camera_angle_x": 1, "frames": []}', r"frames: is missing or empty"),
    "transforms without matrix": (
        '{"camera_angle_x": 1, "frames": [{"file_path": "a"}]}',
        r"frame 0: has no transform_matrix",
    ),
    "transforms with a 3x3 matrix": (
        json.dumps({"camera_angle_x": 1, "frames": [{"transform_matrix": np.eye(3).tolist()}]}),
        r"frame 0: expected a 4x4 transform_matrix \(shape \[4, 4\]\), found shape \[3, 3\]",
    ),
    "transforms without focal length": (
        json.dumps({"frames": [{"transform_matrix": np.eye(4).tolist()}]}),
        r"frame 0: has neither fl_x nor camera_angle_x",
    ),
    "transforms without size": (
        json.dumps({"fl_x": 500, "frames": [{"transform_matrix": np.eye(4).tolist()}]}),
        r"frame 0: fl_x is 500 pixels, but there are no w and h .*: --image-size",
    ),
    "fisheye": (
        json.dumps({"camera_model": "OPENCV_FISHEYE", "frames": [{"transform_matrix": np.eye(4).tolist()}]}),
        r"camera_model: OPENCV_FISHEYE is not a pinhole",
    ),
    "MotionCtrl, 11 numbers": (
        json.dumps([[1.0] * 12, [1.0] * 11]),
        r"frame 1: expected 12 numbers.*found shape \[11\]",
    ),
    "MotionCtrl, words": (json.dumps([["a"] * 12]), r"frame 0: expected 12 numbers"),
    "Unreal, three rows": (
        json.dumps({"frame0": {"cam01": "[1 0 0 0] [0 1 0 0] [0 0 1 0]"}}),
        r"frame0, cam01: expected a 4x4 matrix written as",
    ),
    "Unreal, frame missing": (
        json.dumps(
            {f"frame{index}": {"cam01": "[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1]"} for index in (0, 2)}
        ),
        r"frame1: is missing: the file has 2 frames",
    ),
    "Open3D intrinsics alone": (
        json.dumps({"width": 4, "height": 4, "intrinsic_matrix": [1.0] * 9}),
        r"holds no camera path; expected an Open3D PinholeCameraTrajectory",
    ),
    "Open3D, no matrix": (
        json.dumps(
            {
                "class_name": "PinholeCameraTrajectory",
                "parameters": [{"extrinsic": np.eye(4).ravel().tolist(), "intrinsic": {"height": 4}}],
            }
        ),
        r"frame 0: expected an intrinsic_matrix of 9 numbers",
    ),
    "Open3D, no width": (
        json.dumps(
            {
                "class_name": "PinholeCameraTrajectory",
                "parameters": [
                    {
                        "extrinsic": np.eye(4).ravel().tolist(),
                        "intrinsic": {"height": 4, "intrinsic_matrix": np.eye(3).ravel().tolist()},
                    }
                ],
            }
        ),
        r"frame 0, intrinsic: has no width; expected a number",
    ),
    "angle in degrees": (
        json.dumps({"camera_angle_x": 60, "frames": [{"transform_matrix": np.eye(4).tolist()}]}),
        r"frame 0: camera_angle_x is 60, expected radians between 0 and pi; is it in degrees",
    ),
    "NaN in JSON": (
        json.dumps([[1.0] * 11 + [float("nan")]]),
        r"frame 0: 12 numbers.*: holds NaN or infinity",
    ),
    "OpenSfM, camera missing": (
        json.dumps(
            [
                {
                    "cameras": {},
                    "shots": {"a.jpg": {"rotation": [0] * 3, "translation": [0] * 3, "camera": "c"}},
                }
            ]
        ),
        r"shot a.jpg: uses camera 'c', which the file lacks",
    ),
    "OpenSfM, sphere": (
        json.dumps(
            [
                {
                    "cameras": {"c": {"projection_type": "spherical", "width": 4, "height": 2}},
                    "shots": {"a.jpg": {"rotation": [0] * 3, "translation": [0] * 3, "camera": "c"}},
                }
            ]
        ),
        r"shot a.jpg: projection type 'spherical' is not a pinhole",
    ),
}


@pytest.mark.parametrize("case", BROKEN_TEXT)
def test_broken_file_is_explained(tmp_path, case):
    content, message = BROKEN_TEXT[case]
    file = tmp_path / "broken.txt"
    file.write_text(content)
    with pytest.raises(CameraError, match=message) as raised:
        load_cameras(file)
    assert str(raised.value).startswith(str(file))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_damaged_file_is_read_or_explained_with_its_name(tmp_path, name):
    target = tmp_path / "damaged"
    save_cameras(preset("dolly_zoom_in", 3), target, name, image_size=SIZE)
    files = [target] if target.is_file() else sorted(target.iterdir())
    originals = [file.read_bytes() for file in files]
    generator = np.random.default_rng(7)
    explained = 0
    for _ in range(60):
        chosen = int(generator.integers(len(files)))
        damaged = bytearray(originals[chosen])
        place, length = int(generator.integers(1, len(damaged))), int(generator.integers(1, 12))
        kind = int(generator.integers(4))
        if kind == 0:
            del damaged[place : place + length]
        elif kind == 1:
            damaged[place:place] = generator.integers(32, 127, length).astype(np.uint8).tobytes()
        elif kind == 2:
            del damaged[place:]
        else:
            damaged[place : place + length] = generator.integers(0, 256, length).astype(np.uint8).tobytes()
        files[chosen].write_bytes(bytes(damaged))
        try:
            load_cameras(target)
        except CameraError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017
            explained += 1
        files[chosen].write_bytes(originals[chosen])
    assert explained > 5
    load_cameras(target)


def test_pixels_are_converted_when_the_size_is_given(tmp_path):
    file = tmp_path / "pixels.txt"
    file.write_text(HEADER + GOOD.replace("0.5 0.9 0.5 0.5", "640 648 640 360"))
    cameras = load_cameras(file, image_size=(720, 1280))
    np.testing.assert_allclose(cameras.intrinsics, [(0.5, 0.9, 0.5, 0.5)])
    assert "divided by the given size" in describe_file(file, image_size=(720, 1280))["notes"][0]
    file.write_text(HEADER + GOOD.replace("0.5 0.9 0.5 0.5", "640 648 640 360") + SECOND)
    with pytest.raises(PoseFileError, match=r"line 2: .* look like pixels; those of other lines"):
        load_cameras(file, image_size=(720, 1280))


def test_first_line_that_is_a_pose_is_not_lost(tmp_path):
    file = tmp_path / "headless.txt"
    file.write_text(GOOD + SECOND)
    pose_file = read_pose_file(file)[1]
    assert len(pose_file.cameras) == 2
    assert "other readers of this format skip it" in pose_file.notes[0]


def test_meaningless_times_are_left_out_and_said_so(tmp_path):
    file = tmp_path / "preset.txt"
    file.write_text("\n" + GOOD + GOOD)
    pose_file = read_pose_file(file)[1]
    assert pose_file.cameras.times is None
    assert pose_file.notes == ("the times do not increase and were left out",)


def test_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    file = tmp_path / "windows.txt"
    file.write_bytes(b"\xef\xbb\xbf" + (HEADER + GOOD + SECOND).replace("\n", "\r\n").encode())
    assert len(load_cameras(file)) == 2


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "poses.npy", np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)
    with pytest.raises(PoseFileError, match=r"poses.npy: is not a readable NumPy file of numbers"):
        load_cameras(tmp_path)
    np.savez(
        tmp_path / "scene.npz", viewmats=np.array([{"not": "numbers"}], dtype=object), Ks=np.eye(3)[None]
    )
    with pytest.raises(PoseFileError, match=r"scene.npz: is not a readable archive of plain numbers"):
        load_cameras(tmp_path / "scene.npz")


def test_truncated_array_is_explained(tmp_path):
    save_cameras(preset("dolly_in", 9), tmp_path, "lingbot")
    whole = (tmp_path / "poses.npy").read_bytes()
    (tmp_path / "poses.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PoseFileError, match=r"poses.npy: is not a readable NumPy file"):
        load_cameras(tmp_path)


def test_wrong_counts_of_poses_and_intrinsics(tmp_path):
    save_cameras(preset("dolly_in", 9), tmp_path, "lingbot")
    np.save(tmp_path / "intrinsics.npy", np.ones((8, 4), np.float32) * 300)
    with pytest.raises(PoseFileError, match=r"intrinsics.npy: has shape \[8, 4\] for 9 poses"):
        load_cameras(tmp_path)
    np.save(tmp_path / "poses.npy", np.ones((9, 3), np.float32))
    with pytest.raises(
        PoseFileError, match=r"poses.npy: holds float32 \[9, 3\], expected floats \[frames, 4, 4\]"
    ):
        load_cameras(tmp_path)


def test_numpy_folder_without_intrinsics_takes_the_default(tmp_path):
    save_cameras(preset("dolly_in", 9), tmp_path, "lingbot")
    (tmp_path / "intrinsics.npy").unlink()
    assert read_pose_file(tmp_path)[1].intrinsics_from.endswith("there is no intrinsics.npy")


def test_unknown_camera_of_a_file_with_several(tmp_path):
    save_cameras(preset("dolly_in", 3), tmp_path / "cameras.json", "recammaster")
    with pytest.raises(PoseFileError, match="holds no camera 'cam07'; it holds cam01"):
        load_cameras(f"{tmp_path}/cameras.json#cam07")


def test_angle_without_size_uses_the_picture_or_says_what_it_assumed(tmp_path):
    document = {
        "camera_angle_x": np.pi / 2,
        "frames": [{"file_path": "r_0", "transform_matrix": np.eye(4).tolist()}],
    }
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps(document))
    pose_file = read_pose_file(file)[1]
    np.testing.assert_allclose(pose_file.cameras.intrinsics, [(0.5, 0.5, 0.5, 0.5)])
    assert "a square picture was assumed" in pose_file.notes[0]
    (tmp_path / "r_0.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (200).to_bytes(4, "big") + (100).to_bytes(4, "big")
    )
    pose_file = read_pose_file(file)[1]
    np.testing.assert_allclose(pose_file.cameras.intrinsics, [(0.5, 1.0, 0.5, 0.5)])
    assert pose_file.image_size == (100, 200)


def test_intrinsics_of_a_frame_stand_before_those_of_the_file(tmp_path):
    frame = {"transform_matrix": np.eye(4).tolist()}
    file = tmp_path / "transforms.json"
    file.write_text(
        json.dumps({"fl_x": 100, "w": 200, "h": 100, "frames": [frame, {**frame, "fl_x": 50, "cx": 90}]})
    )
    np.testing.assert_allclose(load_cameras(file).intrinsics, [(0.5, 1.0, 0.5, 0.5), (0.25, 0.5, 0.45, 0.5)])


def test_distortion_is_reported(tmp_path):
    file = tmp_path / "transforms.json"
    frame = {"transform_matrix": np.eye(4).tolist()}
    file.write_text(json.dumps({"fl_x": 9, "w": 20, "h": 10, "k1": 0.1, "frames": [frame]}))
    assert read_pose_file(file)[1].notes == (
        "lens distortion is ignored; undistort the pictures for exact rays",
    )


@pytest.mark.parametrize("layout", ["", "sparse", "sparse/0", "0"])
@pytest.mark.parametrize("name", ["colmap", "colmap_text"])
def test_colmap_model_is_found_where_tools_put_it(tmp_path, layout, name):
    path = preset("orbit_left", 12)
    save_cameras(path, tmp_path / layout, name, image_size=SIZE)
    assert detect_format(tmp_path).name == name
    np.testing.assert_allclose(load_cameras(tmp_path).world_from_camera, path.world_from_camera, atol=1e-12)


def test_colmap_file_stands_for_its_model(tmp_path):
    save_cameras(preset("orbit_left", 3), tmp_path, "colmap", image_size=SIZE)
    assert len(load_cameras(tmp_path / "images.bin")) == 3


def test_colmap_frames_come_in_natural_order(tmp_path):
    path = preset("dolly_in", 3, easing="linear")
    save_cameras(path, tmp_path, "colmap_text", image_size=SIZE, names=("10.jpg", "9.jpg", "100.jpg"))
    pose_file = read_pose_file(tmp_path)[1]
    assert pose_file.names == ("9.jpg", "10.jpg", "100.jpg")
    np.testing.assert_allclose(pose_file.cameras.positions[:, 2], path.positions[[1, 0, 2], 2], atol=1e-12)


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin"])
def test_truncated_colmap_file_is_explained(tmp_path, part):
    save_cameras(preset("orbit_left", 3), tmp_path, "colmap", image_size=SIZE)
    whole = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(whole[:-5])
    with pytest.raises(PoseFileError, match=rf"{part}: byte \d+: the file ends after {len(whole) - 5} bytes"):
        load_cameras(tmp_path)


def test_incomplete_colmap_model_is_explained(tmp_path):
    save_cameras(preset("orbit_left", 3), tmp_path, "colmap", image_size=SIZE)
    (tmp_path / "cameras.bin").unlink()
    with pytest.raises(PoseFileError, match=r"has no cameras.bin; a COLMAP model needs"):
        load_cameras(tmp_path)


def test_colmap_camera_that_is_no_pinhole(tmp_path):
    save_cameras(preset("orbit_left", 3), tmp_path, "colmap_text", image_size=SIZE)
    (tmp_path / "cameras.txt").write_text("1 OPENCV_FISHEYE 80 48 1 2 3 4 5 6 7 8\n")
    with pytest.raises(
        PoseFileError, match=r"cameras.txt: line 1: camera model OPENCV_FISHEYE is not a pinhole"
    ):
        load_cameras(tmp_path)
    (tmp_path / "cameras.txt").write_text("2 PINHOLE 80 48 50 50 40 24\n")
    with pytest.raises(PoseFileError, match=r"images.txt: line 3: frame_00000.png uses camera 1, which"):
        load_cameras(tmp_path)


def test_broken_colmap_pose_names_its_line(tmp_path):
    save_cameras(preset("orbit_left", 3), tmp_path, "colmap_text", image_size=SIZE)
    lines = (tmp_path / "images.txt").read_text().splitlines()
    lines[4] = "2 1 1 1 1 0 0 0 1 frame_00001.png"
    (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        PoseFileError, match=r"images.txt: line 5 \(frame_00001.png\): the quaternion .* has length 2"
    ):
        load_cameras(tmp_path)


# --- detection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["realestate10k", "tum", "motionctrl", "opensfm", "open3d_log"])
@pytest.mark.parametrize("disguise", ["images.txt", "poses.npy", "transforms.json", "clip.bin", "path"])
def test_detection_does_not_trust_names(tmp_path, name, disguise):
    save_cameras(preset("orbit_left", 5), tmp_path / "original", name, image_size=SIZE)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(tmp_path / "original", folder / disguise)
    assert detect_format(folder / disguise).name == name


# --- what looks odd --------------------------------------------------------------------------------------


def noisy_walk(frames: int = 60) -> Cameras:
    """A walk along a gentle curve, far from the origin, with the rotation noise of real estimates."""
    generator = np.random.default_rng(3)
    path = preset("orbit_left", frames, degrees=40, distance=8)
    noise = preset("handheld", frames, metres=0.0, degrees=1.0, seed=4)
    jitter = np.tile(np.eye(4), (frames, 1, 1))
    jitter[:, :3, :3] = noise.rotations
    jitter[:, :3, 3] = generator.normal(0, 1e-3, (frames, 3))
    poses = path.world_from_camera @ jitter
    poses[:, :3, 3] += (6.0, 0.0, 4.0)
    return Cameras(poses, (0.6, 1.0, 0.5, 0.5))


def test_sound_paths_look_like_nothing_odd(tmp_path):
    save_cameras(noisy_walk(), tmp_path / "walk.txt")
    assert describe_file(tmp_path / "walk.txt")["hints"] == []


def test_inverted_matrices_are_noticed(tmp_path):
    walk = noisy_walk()
    generator = np.random.default_rng(0)
    shaken = np.array(walk.world_from_camera)
    from scipy.spatial.transform import Rotation

    shaken[:, :3, :3] = (
        shaken[:, :3, :3] @ Rotation.from_rotvec(generator.normal(0, 0.02, (60, 3))).as_matrix()
    )
    wrong = dataclasses.replace(walk, world_from_camera=np.linalg.inv(shaken))
    save_cameras(wrong, tmp_path / "wrong.txt")
    hints = describe_file(tmp_path / "wrong.txt")["hints"]
    assert any("smoother if the matrices are inverted" in hint for hint in hints)


def test_jumps_and_backward_motion_and_centimetres_are_noticed(tmp_path):
    poses = np.array(preset("dolly_out", 20).world_from_camera)
    save_cameras(Cameras(poses, (0.6, 1.0, 0.5, 0.5)).scaled(150), tmp_path / "far.txt")
    hints = " ".join(describe_file(tmp_path / "far.txt")["hints"])
    assert "backwards along its line of sight" in hints
    assert "centimetres" in hints
    turned = np.array(preset("pan_left", 20).world_from_camera)
    turned[12:, :3, :3] = turned[12:, :3, :3] @ np.diag((-1.0, -1.0, 1.0))
    save_cameras(Cameras(turned, (0.6, 1.0, 0.5, 0.5)), tmp_path / "jump.txt")
    assert "180 degrees from frame 11 to frame 12" in describe_file(tmp_path / "jump.txt")["hints"][0]


def test_description_is_plain_json(tmp_path):
    path = preset("zoom_in", 25, fps=12.0)
    save_cameras(path, tmp_path / "path.txt")
    description = json.loads(json.dumps(describe_file(tmp_path / "path.txt")))
    assert description["format"] == "realestate10k"
    assert description["unit"] == "m"
    assert description["duration_s"] == pytest.approx(2.0)
    assert description["fps"] == pytest.approx(12.0)
    assert description["intrinsics_vary"] is True
    assert description["convention"] == format_named("realestate10k").convention
