"""The published path files of the shared test inputs, and a second reading of each that shares no code
with ours.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Published(NamedTuple):
    """A path file: where it lies, what it is, how many frames it has."""

    path: str
    format: str
    frames: int


PUBLISHED = (
    *(
        Published(f"re10k_cameractrl/pose_files/{name}.txt", "realestate10k", 16)
        for name in (
            "0bf152ef84195293",
            "0c11dbe781b1c11c",
            "0c9b371cc6225682",
            "0f47577ab3441480",
            "0f68374b76390082",
        )
    ),
    *(
        Published(f"evo_re10k/{name}.est.txt", "realestate10k", 16)
        for name in (
            "0bf152ef84195293",
            "0c11dbe781b1c11c",
            "0c9b371cc6225682",
            "0f47577ab3441480",
            "0f68374b76390082",
        )
    ),
    *(
        Published(f"presets_videox_fun/{name}.txt", "realestate10k", 81)
        for name in ("ACW", "Pan_Left", "Pan_Left_Up", "Pan_Right_Down", "Pan_Up", "Zoom_In")
    ),
    *(
        Published(f"presets_cami2v/{name}.txt", "realestate10k", frames)
        for name, frames in (
            ("look_left", 50),
            ("look_up", 50),
            ("orbit_left", 150),
            ("pan_down", 50),
            ("pan_left", 150),
            ("rotate_clockwise", 50),
            ("stationary", 2),
            ("zoom_in", 8),
        )
    ),
    *(
        Published(f"evo_degenerate/{name}.est.txt", "realestate10k", frames)
        for name, frames in (
            ("look_left", 50),
            ("orbit_left", 150),
            ("pan_down", 50),
            ("pan_left", 150),
            ("rotate_clockwise", 50),
            ("stationary", 2),
            ("zoom_in", 8),
        )
    ),
    *(
        Published(f"motionctrl_rt/test_camera_{name}.json", "motionctrl", 16)
        for name in (
            "I",
            "L",
            "U",
            "SPIN-CW-60",
            "Round-ZoomIn",
            "018f7907401f2fef",
            "088b93f15ca8745d",
            "1424acd0007d40b5",
        )
    ),
    Published("lingbot_world/00", "lingbot", 961),
    Published("lingbot_world/01/poses.npy", "lingbot", 561),
    *(
        Published(f"recammaster/cameras/camera_extrinsics.json#cam{index:02d}", "recammaster", 81)
        for index in range(1, 11)
    ),
    Published("nerfstudio_lego/transforms_train.json", "transforms_json", 1),
    Published("opensfm_berlin/reconstruction_example.json", "opensfm", 3),
    Published("open3d_rgbd/trajectory.log", "open3d_log", 5),
    Published("open3d_rgbd/odometry.log", "open3d_log", 5),
    Published("open3d_rgbd/camera_trajectory.json", "open3d_json", 31),
    Published("gsplat_garden/test_garden.npz", "gsplat", 3),
    Published("evo/freiburg1_xyz-groundtruth.txt", "tum", 3000),
    Published("evo/freiburg1_xyz-rgbdslam.txt", "tum", 788),
    Published("evo/freiburg1_xyz-rgbdslam_drift.txt", "tum", 788),
    Published("evo/freiburg1_xyz-ORB_kf_mono.txt", "tum", 32),
    Published("tartanair/pose_gt.txt", "tartanair", 734),
    Published("tartanair/pose_est.txt", "tartanair", 734),
)

OTHER_FILES = (
    "open3d_rgbd/camera_primesense.json",  # intrinsics alone
    "evo/expected_",  # numbers to compare with
    "evo/associated_",  # pairs of paths, a test oracle of the evaluation
    "evo_re10k/*.expected.json",
    "evo_degenerate/*.expected.json",
    "tartanair/expected_",
    "lingbot_world/00/",
    "lingbot_world/01/",
    "opencv_sfm/",  # point tracks
    "wan_fun_camera/",  # models and rays, oracles of the import
    "wan_t2v/",
)
"""Files with a pose file's suffix that hold no path, and folders listed as a whole."""


def relative_poses(world_from_camera: np.ndarray) -> np.ndarray:
    """Poses seen from the first one; the choice of world cancels."""
    return np.linalg.inv(world_from_camera[0]) @ world_from_camera


def second_reading(path: Path, selection: str, pose_format: str) -> np.ndarray:
    """World-from-camera matrices in OpenCV camera axes, float64 [T, 4, 4], straight from the numbers."""
    return _READINGS[pose_format](path, selection)


def _rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    poses = np.zeros((len(rotation), 4, 4))
    poses[:, :3, :3], poses[:, :3, 3], poses[:, 3, 3] = rotation, translation, 1.0
    return poses


def _inverse(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    transposed = np.swapaxes(rotation, 1, 2)
    return _rigid(transposed, -np.einsum("tij,tj->ti", transposed, translation))


def _quaternions(xyzw: np.ndarray) -> np.ndarray:
    x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=1,
    )


def _realestate10k(path: Path, _: str) -> np.ndarray:
    values = np.loadtxt(path.read_text().splitlines()[1:], ndmin=2)[:, 7:].reshape(-1, 3, 4)
    return _inverse(values[:, :, :3], values[:, :, 3])


def _motionctrl(path: Path, _: str) -> np.ndarray:
    values = np.array(json.loads(path.read_text())).reshape(-1, 3, 4)
    return _inverse(values[:, :, :3], values[:, :, 3])


def _lingbot(path: Path, _: str) -> np.ndarray:
    return np.load(path / "poses.npy" if path.is_dir() else path).astype(np.float64)


def _recammaster(path: Path, selection: str) -> np.ndarray:
    # The published loader: transpose, reorder the columns, negate the second, metres. Relative poses only.
    document = json.loads(path.read_text())
    poses = []
    for index in range(len(document)):
        numbers = re.findall(r"[-+.\deE]+", document[f"frame{index}"][selection])
        matrix = np.array(numbers, dtype=float).reshape(4, 4).T
        matrix = matrix[:, [1, 2, 0, 3]]
        matrix[:3, 1] *= -1.0
        matrix[:3, 3] /= 100.0
        poses.append(matrix)
    return np.stack(poses)


def _transforms(path: Path, _: str) -> np.ndarray:
    poses = np.array([frame["transform_matrix"] for frame in json.loads(path.read_text())["frames"]])
    poses[:, :, 1:3] *= -1.0
    return poses


def _opensfm(path: Path, _: str) -> np.ndarray:
    shots = json.loads(path.read_text())[0]["shots"]
    rotations, translations = [], []
    for name in sorted(shots, key=lambda name: shots[name].get("capture_time", 0)):
        vector = np.array(shots[name]["rotation"])
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotations.append(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
        translations.append(shots[name]["translation"])
    return _inverse(np.array(rotations), np.array(translations))


def _open3d_log(path: Path, _: str) -> np.ndarray:
    return np.array(path.read_text().split(), dtype=float).reshape(-1, 19)[:, 3:].reshape(-1, 4, 4)


def _open3d_json(path: Path, _: str) -> np.ndarray:
    entries = json.loads(path.read_text())["parameters"]
    columns = np.array([entry["extrinsic"] for entry in entries]).reshape(-1, 4, 4)
    extrinsics = np.swapaxes(columns, 1, 2)
    return _inverse(extrinsics[:, :3, :3], extrinsics[:, :3, 3])


def _gsplat(path: Path, _: str) -> np.ndarray:
    viewmats = np.load(path)["viewmats"].astype(np.float64)
    return _inverse(viewmats[:, :3, :3], viewmats[:, :3, 3])


def _tum(path: Path, _: str) -> np.ndarray:
    values = np.loadtxt(path)
    return _rigid(_quaternions(values[:, 4:]), values[:, 1:4])


def _tartanair(path: Path, _: str) -> np.ndarray:
    values = np.loadtxt(path)
    ned = _rigid(_quaternions(values[:, 3:]), values[:, :3])
    ned[:, :, :3] = ned[:, :, [1, 2, 0]]  # camera axes: right, down, forward
    return ned


_READINGS = {
    "realestate10k": _realestate10k,
    "motionctrl": _motionctrl,
    "lingbot": _lingbot,
    "recammaster": _recammaster,
    "transforms_json": _transforms,
    "opensfm": _opensfm,
    "open3d_log": _open3d_log,
    "open3d_json": _open3d_json,
    "gsplat": _gsplat,
    "tum": _tum,
    "tartanair": _tartanair,
}
