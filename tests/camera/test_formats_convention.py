"""Files that depart from what their format says: inverse matrices, other axes, the other quaternion."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import CameraError, Cameras, preset
from camctrl_jax.camera.description import describe_file
from camctrl_jax.camera.formats import (
    FORMATS,
    Convention,
    load_cameras,
    read_pose_file,
    save_cameras,
)
from camctrl_jax.camera.formats.axes import axes_of_file_from_opencv
from camctrl_jax.errors import UserError

SIZE = (48, 80)
CODES = [
    "".join(letters)
    for pairs in itertools.permutations(("RL", "UD", "FB"))
    for letters in itertools.product(*pairs)
]


def walk(frames: int = 9) -> Cameras:
    """Turns and moves about all three axes, away from the origin, so that no mistake cancels."""
    angles = np.linspace(0.1, 0.9, frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler(
        "xyz", np.stack([angles, -0.7 * angles, 0.4 * angles], 1)
    ).as_matrix()
    poses[:, :3, 3] = np.stack([1.0 + angles, 2.0 - angles**2, 0.3 * angles], 1)
    return Cameras(poses, (0.6, 1.0, 0.5, 0.5))


def relative(cameras: Cameras) -> np.ndarray:
    return cameras.relative_to(0).world_from_camera


def tum_lines(poses: np.ndarray, *, scalar_first: bool = False) -> str:
    lines = []
    for index, pose in enumerate(poses):
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        if scalar_first:
            quaternion = np.roll(quaternion, 1)
        lines.append(" ".join(f"{value:.17g}" for value in (index / 30, *pose[:3, 3], *quaternion)))
    return "\n".join(lines) + "\n"


def test_scalar_first_tum_is_read_right_when_it_is_said(tmp_path):
    dolly = preset("dolly_in", 9, metres=1.5)
    tilted = dolly.transformed(walk().world_from_camera[4])  # no identity, no symmetric quaternion
    file = tmp_path / "wxyz.txt"
    file.write_text(tum_lines(tilted.world_from_camera, scalar_first=True))
    read = load_cameras(file, convention=Convention(quaternions="wxyz"))
    np.testing.assert_allclose(read.world_from_camera, tilted.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(read.relative_to(0).positions[-1], (0, 0, 1.5), atol=1e-12)
    # As the format says, it is another path: the order matters here.
    assert np.abs(load_cameras(file).world_from_camera - tilted.world_from_camera).max() > 0.1


def test_scalar_first_identity_rotation_moves_forward(tmp_path):
    # The plain case: 1 0 0 0 in every line is no turn, and read scalar last half a turn about x.
    file = tmp_path / "dolly.txt"
    file.write_text("".join(f"{index / 10} 0 0 {index * 0.15} 1 0 0 0\n" for index in range(11)))
    scalar_last = load_cameras(file).relative_to(0).positions[-1]
    np.testing.assert_allclose(scalar_last, (0, 0, -1.5), atol=1e-12)
    scalar_first = load_cameras(file, convention=Convention(quaternions="wxyz")).relative_to(0).positions[-1]
    np.testing.assert_allclose(scalar_first, (0, 0, 1.5), atol=1e-12)


@pytest.mark.parametrize("name", [known.name for known in FORMATS if known.quaternions])
def test_the_other_order_of_quaternions_in_every_format_that_has_them(tmp_path, name):
    # A file that its writer wrote in the other order: written as usual, then its four numbers rolled.
    own = next(known for known in FORMATS if known.name == name).quaternions
    other = {"xyzw": "wxyz", "wxyz": "xyzw"}[own]
    if name == "colmap":
        pytest.skip("binary: the text form has the same reader of quaternions")
    target = tmp_path / "path"
    save_cameras(walk(), target, name, image_size=SIZE)
    file = target / "images.txt" if name == "colmap_text" else target
    first = {"tum": 4, "tartanair": 3, "colmap_text": 1}[name]
    lines = []
    for line in file.read_text().splitlines():
        words = line.split()
        if words and words[0] != "#":
            words[first : first + 4] = np.roll(words[first : first + 4], 1 if other == "wxyz" else -1)
        lines.append(" ".join(words))
    file.write_text("\n".join(lines) + "\n")
    read = load_cameras(target, convention=Convention(quaternions=other))
    np.testing.assert_allclose(relative(read), relative(walk()), atol=1e-12)


def test_binary_colmap_knows_the_other_order_too(tmp_path):
    save_cameras(walk(), tmp_path, "colmap", image_size=SIZE)
    said = load_cameras(tmp_path, convention=Convention(quaternions="wxyz"))  # what the format says anyway
    np.testing.assert_array_equal(said.world_from_camera, load_cameras(tmp_path).world_from_camera)
    other = load_cameras(tmp_path, convention=Convention(quaternions="xyzw"))
    quaternion = Rotation.from_matrix(walk().camera_from_world[3, :3, :3]).as_quat(canonical=True)  # x y z w
    expected = Rotation.from_quat(np.roll(quaternion, 1)).as_matrix()  # w x y z, taken for x y z w
    np.testing.assert_allclose(other.camera_from_world[3, :3, :3], expected, atol=1e-12)


@pytest.mark.parametrize("known", [known for known in FORMATS if known.write], ids=lambda known: known.name)
def test_inverse_matrices_in_every_format(tmp_path, known):
    # In the file's own axes and world: write the path whose matrices there are the inverses of ours.
    file_from_opencv = axes_of_file_from_opencv(known.axes)
    path = walk()
    world = file_from_opencv if known.world_in_axes else np.eye(4)
    in_file = world @ path.world_from_camera @ np.linalg.inv(file_from_opencv)
    wrong = np.linalg.inv(world) @ np.linalg.inv(in_file) @ file_from_opencv
    metric = known.name == "recammaster"
    save_cameras(
        Cameras(wrong, path.intrinsics, metric=metric), tmp_path / "path", known.name, image_size=SIZE
    )
    read = load_cameras(tmp_path / "path", convention=Convention(inverse=True), image_size=SIZE)
    tolerance = 1e-5 if known.name in ("lingbot", "gsplat") else 1e-9
    np.testing.assert_allclose(relative(read), relative(path), atol=tolerance)
    as_said = load_cameras(tmp_path / "path", image_size=SIZE)
    assert np.abs(relative(as_said) - relative(path)).max() > 0.1


@pytest.mark.parametrize("code", CODES)
def test_every_code_against_a_hand_computation(tmp_path, code):
    # A camera that stands at (1, 2, 3) of the world. Each column of the file's matrix is one of its axes,
    # named by the code; we say where right, down and forward of the camera point.
    rotation = Rotation.from_euler("xyz", (0.3, -0.5, 0.8)).as_matrix()
    right, down, forward = rotation.T
    named = {"R": right, "L": -right, "D": down, "U": -down, "F": forward, "B": -forward}
    pose = np.eye(4)
    pose[:3, :3] = np.stack([named[letter] for letter in code], axis=1)
    pose[:3, 3] = (1.0, 2.0, 3.0)
    second = pose.copy()
    second[:3, 3] += 2.0 * forward - 0.5 * right  # steps forward by 2, to the left by 0.5
    np.save(tmp_path / "poses.npy", np.stack([pose, second]))
    read = load_cameras(tmp_path / "poses.npy", convention=Convention(axes=code))
    np.testing.assert_allclose(read.rotations[0], rotation, atol=1e-12)
    np.testing.assert_allclose(read.positions[0], (1, 2, 3), atol=1e-12)
    np.testing.assert_allclose(read.relative_to(0).positions[1], (-0.5, 0, 2), atol=1e-12)


def test_axes_of_every_format_are_those_that_it_says(tmp_path):
    # Saying what the format says anyway changes nothing.
    for known in FORMATS:
        if known.write is None:
            continue
        metric = known.name == "recammaster"
        target = tmp_path / known.name
        save_cameras(
            Cameras(walk().world_from_camera, (0.6, 1, 0.5, 0.5), metric=metric),
            target,
            known.name,
            image_size=SIZE,
        )
        plain = load_cameras(target, image_size=SIZE).world_from_camera
        said = load_cameras(target, convention=Convention(axes=known.axes.lower()), image_size=SIZE)
        np.testing.assert_array_equal(said.world_from_camera, plain)


def test_unity_axes_give_the_path_and_a_note(tmp_path):
    # Unity: camera and world left-handed, so its matrices are rotations.
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1, :3, 3] = (1, 2, 3)
    poses[2, :3, :3] = Rotation.from_euler("y", 30, degrees=True).as_matrix()  # left-handed: turns right
    np.save(tmp_path / "poses.npy", poses)
    pose_file = read_pose_file(tmp_path / "poses.npy", convention=Convention(axes="RUF"))[1]
    path = pose_file.cameras.relative_to(0)
    np.testing.assert_allclose(path.positions[1], (1, -2, 3), atol=1e-12)
    np.testing.assert_allclose(path.rotations[2][:, 2], (0.5, 0, np.sqrt(0.75)), atol=1e-12)  # looks right
    assert "world is left-handed" in pose_file.notes[-1]


def test_tartanair_columns_in_opencv_axes(tmp_path):
    # DROID-SLAM and others write these seven columns without TartanAir's axes.
    file = tmp_path / "slam.txt"
    file.write_text(
        "\n".join(line.split(" ", 1)[1] for line in tum_lines(walk().world_from_camera).splitlines())
    )
    read = load_cameras(file, convention=Convention(axes="RDF"))
    np.testing.assert_allclose(read.world_from_camera, walk().world_from_camera, atol=1e-12)


def test_all_three_departures_together(tmp_path):
    # World-to-camera, OpenGL axes, scalar first, in TUM's columns.
    opengl = walk().world_from_camera @ np.diag((1.0, -1.0, -1.0, 1.0))
    file = tmp_path / "all.txt"
    file.write_text(tum_lines(np.linalg.inv(opengl), scalar_first=True))
    convention = Convention(inverse=True, axes="RUB", quaternions="wxyz")
    np.testing.assert_allclose(
        load_cameras(file, convention=convention).world_from_camera, walk().world_from_camera, atol=1e-12
    )
    description = describe_file(file, convention=convention)
    assert description["convention"].endswith(
        "; read with: inverse matrices; camera axes x right, y up, z back; quaternions w x y z"
    )
    assert "read with" not in describe_file(file)["convention"]


@pytest.mark.parametrize("code", ["RDR", "XYZ", "RD", "RDFF", "opencv", "R D F", "LRF", " "])
def test_axes_that_are_none_are_refused_with_examples(tmp_path, code):
    save_cameras(walk(), tmp_path / "path.txt")
    with pytest.raises(
        UserError, match=rf"camera axes '{code}': expected where x, y and z point.*RUB \(OpenGL"
    ):
        load_cameras(tmp_path / "path.txt", convention=Convention(axes=code))


def test_quaternions_of_a_format_without_any_are_refused(tmp_path):
    save_cameras(walk(), tmp_path / "path.txt")
    with pytest.raises(UserError, match=r"'wxyz': files of the format realestate10k hold no quaternions"):
        load_cameras(tmp_path / "path.txt", convention=Convention(quaternions="wxyz"))


@pytest.mark.parametrize("order", ["wxzy", "WXYZ", "w", "scalar first"])
def test_unknown_order_of_quaternions(tmp_path, order):
    save_cameras(walk(), tmp_path / "path.txt", "tum")
    with pytest.raises(UserError, match=rf"order of quaternions '{order}': expected xyzw or wxyz"):
        load_cameras(tmp_path / "path.txt", convention=Convention(quaternions=order))


def test_inverse_of_what_has_none_names_the_frame(tmp_path):
    poses = np.stack([np.eye(4)] * 3)
    poses[1, :3, :3] = 0.0
    np.save(tmp_path / "poses.npy", poses)
    with pytest.raises(CameraError, match=r"poses.npy frame 1: the rotation is singular"):
        load_cameras(tmp_path / "poses.npy", convention=Convention(inverse=True))
