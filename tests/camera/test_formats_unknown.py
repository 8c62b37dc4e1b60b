"""Files that are no pose files of ours: what was found is named, and the nearest format."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from camctrl_jax.camera import CameraError
from camctrl_jax.camera.formats import load_cameras

EYE = np.eye(4).tolist()

JSON = {
    "a list of matrices": ([EYE] * 3, r"a list of 3 matrices 4x4\. The nearest format is kitti.*--invert"),
    "poses": ({"poses": [EYE] * 3}, r"poses looks like camera-to-world matrices, 4x4\. The nearest .* kitti"),
    "c2w": ({"c2w": [EYE[:3]] * 3}, r"c2w looks like camera-to-world matrices, 3x4\. The nearest .* kitti"),
    "a matrix a key": ({"0": EYE, "1": EYE}, r"Its keys hold one matrix each\. The nearest format is kitti"),
    "extrinsics": (
        {"extrinsics": [EYE]},
        r"extrinsics looks like world-to-camera.* ac3d.* or kitti with --in",
    ),
    "nested": ({"vggt": {"extrinsic": [EYE[:3]]}}, r"extrinsic looks like world-to-camera matrices, 3x4"),
    "another name": ({"trajectory": [EYE]}, r"trajectory holds matrices 4x4\. The nearest format is kitti"),
    "keys": (
        {"a": 1, "b": [1, 2]},
        r"it is JSON, an object with the keys a \(1\), b \(a list of 2\)\. Known",
    ),
    "an empty object": ({}, r"it is JSON, an empty object\. Known"),
    "an empty list": ([], r"it is JSON, an empty list\. Known"),
    "many keys": ({f"k{i}": 0 for i in range(20)}, r"k7 \(0\) and 12 more\. Known"),
    "Gaussian Splatting": (
        [{"id": 0, "img_name": "a", "width": 9, "height": 9, "position": [0] * 3, "rotation": EYE, "fx": 1}],
        r"a list of 1 objects with the keys id, img_name, width, height, position, rotation, fx\. It may be "
        r"cameras.json of Gaussian Splatting",
    ),
    "frames that are an object": (
        {"frames": {"0": EYE}},
        r"keys frames \(an object of 1 keys\)\. The nearest format is transforms_json",
    ),
    "a list of frames": (
        [{"transform_matrix": EYE}],
        r"objects with the keys transform_matrix\. The nearest format is transforms_json",
    ),
    "frames under another key": (
        {"images": [{"transform_matrix": EYE}]},
        r"The nearest format is transforms_json",
    ),
    "a list of a camera path": ([{"camera_to_world": EYE, "fov": 50}], r"The nearest format is camera_path"),
    "one reconstruction": ({"cameras": {}, "shots": {}}, r"The nearest format is opensfm"),
    "worldplay in a list": ([{"extrinsic": EYE, "K": EYE}], r"The nearest format is worldplay"),
    "worldplay with names": ({"frame_a": {"extrinsic": EYE, "K": EYE}}, r"The nearest format is worldplay"),
    "w2c alone": ({"w2c": [EYE]}, r"keys w2c \(a list of 1\)\. The nearest format is ac3d"),
    "a list of text": (
        ["a", "b"],
        r"a list of 2, of which the first is text\. The nearest format is motionctrl",
    ),
    "a list of numbers": (
        [1.0, 2.0],
        r"a list of 2, of which the first is 1.0\. The nearest format is motionc",
    ),
    "Open3D of another class": (
        {"class_name": "PoseGraph", "nodes": []},
        r"The nearest format is open3d_json",
    ),
}


@pytest.mark.parametrize("case", JSON)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_described_by_what_it_holds(tmp_path, case, indent):
    document, message = JSON[case]
    file = tmp_path / "poses.json"
    file.write_text(json.dumps(document, indent=indent))
    with pytest.raises(CameraError, match=message) as raised:
        load_cameras(file)
    assert "words" not in str(raised.value)
    assert str(raised.value).startswith(f"{file}: is not a pose file of a known format: it is JSON")


BROKEN_JSON = {
    "cut short": ('{"frames": [', r"line 1, column 1\d: broken JSON"),
    "JSON lines": ('{"a": 1}\n{"a": 2}\n', r"line 2: a second JSON document begins here; .*JSON lines"),
    "a comment": ('{"a": 1, // no\n "b": 2}', r"line 1, column 1\d: broken JSON"),
    "Python's quotes": ("{'a': 1}", r"line 1, column 2: broken JSON"),
    "a thousand brackets": ("[" * 100_000, r"is JSON that cannot be read|broken JSON"),
    "a number of 5,000 digits": ("[" + "1" * 5000 + "]", r"is JSON that cannot be read"),
    "a number that no float holds": (
        json.dumps([[1] * 11 + [10**400]]),
        r"frame 0: expected 12 numbers, the 3x4 world-to-camera matrix row by row, found",
    ),
    "a width that no float holds": (
        json.dumps({"fl_x": 10**400, "w": 4, "h": 4, "frames": [{"transform_matrix": EYE}]}),
        r"frame 0: fl_x is 1000.*, expected a number",
    ),
    "a key twice": ('{"a": 1, "a": 2}', r"the key 'a' stands twice in one object"),
    "null": ("null\n", r"it is JSON, null alone"),
    "a string": ('"poses"', r'it is JSON, "poses" alone'),
}


@pytest.mark.parametrize("case", BROKEN_JSON)
def test_broken_json(tmp_path, case):
    content, message = BROKEN_JSON[case]
    (tmp_path / "poses.json").write_text(content)
    with pytest.raises(CameraError, match=message):
        load_cameras(tmp_path / "poses.json")


POSES = np.tile(np.eye(4), (5, 1, 1))
ARCHIVES = {
    "of MegaSaM": (
        {"images": np.zeros((5, 4, 6, 3), np.uint8), "cam_c2w": POSES, "intrinsic": np.eye(3)},
        r"an .npz archive of images \(uint8 \[5, 4, 6, 3\]\), cam_c2w \(float64 \[5, 4, 4\]\), intrinsic "
        r"\(float64 \[3, 3\]\)\. cam_c2w looks like camera-to-world matrices: save it as poses.npy",
    ),
    "of FLARE": (
        {"pts3d": np.zeros((2, 3)), "poses": POSES, "intrinsic": np.float64(500)},
        r"poses \(float64 \[5, 4, 4\]\), intrinsic \(float64 \[\]\)\. poses looks like camera-to-world",
    ),
    "of VGGT": (
        {"extrinsic": POSES[:, :3], "intrinsic": np.zeros((5, 3, 3))},
        r"extrinsic looks like world-to-camera matrices: save it as viewmats beside Ks",
    ),
    "without Ks' poses": ({"Ks": np.zeros((5, 3, 3))}, r"The nearest format is gsplat"),
    "of something else": ({"x": np.zeros(3)}, r"an .npz archive of x \(float64 \[3\]\)\. Known"),
    "of nothing": ({}, r"a ZIP archive of nothing|a binary file|damaged"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_npz_is_described_by_its_arrays(tmp_path, case):
    arrays, message = ARCHIVES[case]
    np.savez(tmp_path / "scene.npz", **arrays)
    with pytest.raises(CameraError, match=message):
        load_cameras(tmp_path / "scene.npz")


def test_a_cut_npz_and_other_archives(tmp_path):
    import zipfile

    np.savez(tmp_path / "scene.npz", cam_c2w=POSES)
    whole = (tmp_path / "scene.npz").read_bytes()
    (tmp_path / "scene.npz").write_bytes(whole[:200])
    with pytest.raises(CameraError, match=r"it is a damaged .npz or ZIP archive"):
        load_cameras(tmp_path / "scene.npz")
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(CameraError, match=r"it is a PyTorch file of archive/data.pkl"):
        load_cameras(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((5, 17), r"LLFF's poses_bounds.npy, which is not read"),
        ((5, 16), r"array.reshape\(-1, 4, 4\)"),
        ((5, 12), r"array.reshape\(-1, 3, 4\)"),
        ((5, 7), r"tartanair"),
        ((4, 4), r"array\[None\]"),
        ((5, 3, 3), r"expected floats \[frames, 4, 4\], camera-to-world$"),
        ((), r"holds float64 \[\], expected floats"),
        ((0,), r"holds float64 \[0\], expected floats"),
    ],
)
def test_npy_of_another_shape(tmp_path, shape, advice):
    np.save(tmp_path / "traj.npy", np.zeros(shape))
    with pytest.raises(
        CameraError, match=rf"traj.npy: holds float64 {re.escape(str(list(shape)))}.*"
    ) as raised:
        load_cameras(tmp_path / "traj.npy")
    assert re.search(advice, str(raised.value))


ROW = " ".join(["0.5"] * 30)
TEXT = {
    "YAML": (
        "cameras:\n  fx: 1\nposes:\n  - 1\n",
        r"text with 'key: value' lines \(YAML\?\) and the keys cameras, poses",
    ),
    "XML": ("<?xml version='1.0'?>\n<a/>\n", r"it is XML or HTML"),
    "a page": ("<!DOCTYPE html>\n<html></html>\n", r"it is XML or HTML"),
    "CSV with names": (
        "frame,tx,ty,tz,qx,qy,qz,qw\n0,0,0,0,0,0,0,1\n",
        r"8 columns with the names 'frame,tx,ty,tz,qx,qy,qz,qw'\. The nearest format is tum",
    ),
    "CSV without": (
        "0,0,0,0,0,0,1\n1,0,0,0,0,0,1\n",
        r"comma-separated values, 7 columns\. The nearest format is tartanair",
    ),
    "CSV with blanks": (
        "0, 0, 0, 0, 0, 0, 0, 1\n" * 2,
        r"comma-separated values, 8 columns\. The nearest format is tum",
    ),
    "semicolons": (
        "0;0;0;0;0;0;0;1\n" * 2,
        r"semicolon-separated values, 8 columns\. The nearest format is tum",
    ),
    "EuRoC": (
        "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []\n"
        "1403636579758555392,4.6,-1.7,0.8,0.5,-0.2,-0.8,-0.1\n",
        r"It looks like EuRoC's ground truth: nanoseconds, quaternions scalar first, and poses of the body",
    ),
    "positions": ("0 0 0\n0 0 1\n", r"text of 3 numbers a line\. Positions alone are no poses"),
    "angles": ("0 0 0 0 0 0\n" * 3, r"text of 6 numbers a line\. Six numbers may be a position and angles"),
    "rotations": (" ".join(["0"] * 9) + "\n", r"text of 9 numbers a line\. .*nearest format is kitti"),
    "KITTI-360": (ROW[: 13 * 4] + "\n", r"text of 13 numbers a line\. The nearest format is kitti.*in front"),
    "a number and 4x4": (ROW[: 17 * 4] + "\n", r"text of 17 numbers a line\. The nearest format is kitti"),
    "a zero too few": (
        ROW[: 18 * 4] + "\n",
        r"text of 18 numbers a line\. The nearest format is realestate10k",
    ),
    "a zero too many": (
        ROW[: 20 * 4] + "\n",
        r"text of 20 numbers a line\. The nearest format is realestate10k",
    ),
    "matrices": ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", r"text of 4 numbers a line\. .*open3d_log"),
    "decimal commas": (
        "0,5 1,25 3,0 0,0\n",
        r"it is text of numbers with decimal commas.*Write them with points",
    ),
    "prose": ("Once upon a time, there was, I think, a camera\n", r"it is text whose line 1 holds 10 words"),
    "comments": ("# nothing\n# here\n", r"it is text without data lines"),
}


@pytest.mark.parametrize("case", TEXT)
def test_text_is_described(tmp_path, case):
    content, message = TEXT[case]
    (tmp_path / "poses.txt").write_text(content)
    with pytest.raises(CameraError, match=message):
        load_cameras(tmp_path / "poses.txt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            "0 0 0 0 0 0 1\n".encode("utf-16"),
            "text in UTF-16, as some Windows programs write it; save it as UTF-8",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "a PNG picture"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"\x80\x04\x95\0\0\0", "a pickled Python object, which is never read"),
        (b"\x1f\x8b\x08\0\0", "a gzip archive; unpack it first"),
        (b"\0\1\2\3", r"a binary file that begins with b'\x00\x01\x02\x03'"),
    ],
)
def test_binary_files_are_described(tmp_path, content, kind):
    (tmp_path / "poses.txt").write_bytes(content)
    with pytest.raises(CameraError, match=re.escape(f"it is {kind}")):
        load_cameras(tmp_path / "poses.txt")


def test_folders_are_described(tmp_path):
    with pytest.raises(CameraError, match=r"it is a folder of nothing\. Known"):
        load_cameras(tmp_path)
    (tmp_path / "clip.txt").write_text("")
    with pytest.raises(
        CameraError, match=r"a folder of clip.txt\. If one of them holds the path, name that file"
    ):
        load_cameras(tmp_path)
    (tmp_path / "clip.txt").unlink()
    for index in range(3):
        np.savetxt(tmp_path / f"frame-{index:06d}.pose.txt", np.eye(4))
    with pytest.raises(
        CameraError, match=r"frame-000000.pose.txt holds one 4x4 matrix, as ScanNet and 7-Scenes"
    ):
        load_cameras(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"ply\nformat ascii 1.0\nelement vertex 2\nend_header\n0 0 0\n1 1 1\n",
            "a PLY file, of points or a mesh",
        ),
        (b"ply\nformat binary_little_endian 1.0\nend_header\n\0\0\0\0", "a PLY file, of points or a mesh"),
        (b"# Bundle file v0.3\n1 2\n500 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n", "a bundle file of Bundler"),
    ],
)
def test_points_and_bundles_are_named(tmp_path, content, said):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CameraError, match=said):
        load_cameras(tmp_path / "file")
