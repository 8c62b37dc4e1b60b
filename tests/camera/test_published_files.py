"""Every published path file loads, agrees with a second reading of its numbers, and survives a round trip."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import jax
import numpy as np
import pytest
from published import OTHER_FILES, PUBLISHED, Published, relative_poses, second_reading

from camctrl_jax.camera import plucker_map
from camctrl_jax.camera.description import describe_file
from camctrl_jax.camera.formats import load_cameras, read_pose_file, save_cameras

jitted_map = jax.jit(plucker_map, static_argnums=(2, 3))

every_file = pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.path)

# No COLMAP model is among the files; test_oracles.py reads those that COLMAP's own library writes.


def located(test_data, published: Published) -> tuple[str, Path, str]:
    name, _, selection = published.path.partition("#")
    path = test_data(name)
    return (f"{path}#{selection}" if selection else str(path)), path, selection


def test_no_path_file_of_the_test_data_is_left_out(test_data):
    root = test_data("README.md").parent
    listed = {published.path.partition("#")[0] for published in PUBLISHED}
    unlisted = [
        name
        for name in (str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file())
        if name.endswith((".txt", ".json", ".log", ".npy", ".npz"))
        and name not in listed
        and not any(fnmatch.fnmatch(name, f"{pattern}*") for pattern in OTHER_FILES)
    ]
    assert unlisted == []


@every_file
def test_loads_with_its_format_recognised(test_data, published):
    spec, _, _ = located(test_data, published)
    pose_format, pose_file = read_pose_file(spec)
    assert pose_format.name == published.format
    assert len(pose_file.cameras) == published.frames
    description = describe_file(spec)
    assert description["frames"] == published.frames
    assert description["largest_rotation_deviation"] < 2e-6


@every_file
def test_poses_agree_with_a_second_reading(test_data, published):
    spec, path, selection = located(test_data, published)
    expected = relative_poses(second_reading(path, selection, published.format))
    actual = load_cameras(spec).relative_to(0).world_from_camera
    # Rounded rotations are not exactly orthonormal: their inverse and transpose differ by as much.
    scale = max(1.0, np.abs(second_reading(path, selection, published.format)[:, :3, 3]).max())
    np.testing.assert_allclose(actual, expected, atol=3e-6 * scale)


@every_file
def test_round_trip_reproduces_the_file(test_data, published, tmp_path):
    spec, path, selection = located(test_data, published)
    pose_format, pose_file = read_pose_file(spec)
    written = tmp_path / "written"
    save_cameras(
        pose_file.cameras, written, pose_format.name, image_size=pose_file.image_size, names=pose_file.names
    )
    again_format, again = read_pose_file(written)
    assert again_format.name == pose_format.name
    tolerance = {"gsplat": 1e-6, "lingbot": 0.0}.get(pose_format.name, 1e-9)  # float32 formats
    if pose_format.name in ("tum", "tartanair"):
        tolerance = 1e-8
    np.testing.assert_allclose(
        again.cameras.world_from_camera, pose_file.cameras.world_from_camera, atol=tolerance, rtol=1e-9
    )
    np.testing.assert_allclose(again.cameras.intrinsics, pose_file.cameras.intrinsics, atol=1e-7)
    assert again.cameras.metric == pose_file.cameras.metric
    if pose_file.cameras.times is None:
        assert again.cameras.times is None or pose_format.name == "tum"
    else:
        np.testing.assert_allclose(again.cameras.times, pose_file.cameras.times, atol=1e-6)

    # The numbers in the new file are those of the old one; a left-handed world was turned over.
    before = second_reading(path, selection, published.format)
    after = second_reading(written, "cam01", published.format)
    tolerance = {"gsplat": 1e-6, "lingbot": 0.0}.get(pose_format.name, 2e-8)
    scale = max(1.0, np.abs(before[:, :3, 3]).max())
    if (np.linalg.det(before[:, :3, :3]) < 0).all():
        assert (np.linalg.det(after[:, :3, :3]) > 0).all() or pose_format.name == "recammaster"
        before, after = relative_poses(before), relative_poses(after)
    np.testing.assert_allclose(after, before, atol=tolerance * scale)


@every_file
def test_plucker_map_agrees_with_an_independent_ray_computation(test_data, published):
    spec, _, _ = located(test_data, published)
    cameras = load_cameras(spec).relative_to(0)
    cameras = cameras[[0, len(cameras) // 2, len(cameras) - 1]]
    height, width = 6, 10
    expected = np.zeros((3, height, width, 6))
    for frame, (pose, (fx, fy, cx, cy)) in enumerate(zip(cameras.world_from_camera, cameras.intrinsics)):
        matrix = np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]])
        for row in range(height):
            for column in range(width):
                through = np.linalg.solve(matrix, (column + 0.5, row + 0.5, 1.0))
                point = pose @ (*through, 1.0)  # a point on the ray
                origin = pose @ (0.0, 0.0, 0.0, 1.0)
                direction = (point - origin)[:3]
                direction /= np.linalg.norm(direction)
                expected[frame, row, column] = (*np.cross(origin[:3], direction), *direction)
    actual = np.asarray(jitted_map(cameras.world_from_camera, cameras.intrinsics, height, width))
    for part in (slice(0, 3), slice(3, 6)):
        scale = max(1.0, np.abs(expected[..., part]).max())
        np.testing.assert_allclose(actual[..., part], expected[..., part], atol=1e-6 * scale)


def test_left_handed_presets_keep_their_motion(test_data):
    # CamI2V's "look left" has determinant -1 throughout. Its motion is a turn to the left by 90 degrees.
    cameras = load_cameras(test_data("presets_cami2v/look_left.txt"))
    assert np.linalg.det(cameras.rotations).min() > 0.999
    relative = cameras.relative_to(0)
    np.testing.assert_allclose(relative.rotations[-1][:, 2], (-1, 0, 0), atol=1e-6)  # looks left
    np.testing.assert_allclose(relative.rotations[-1][:, 1], (0, 1, 0), atol=1e-6)  # stays upright


def test_recammaster_cameras_do_what_their_names_say(test_data):
    path = test_data("recammaster/cameras/camera_extrinsics.json")
    ends = {}
    for index in range(1, 11):
        cameras = load_cameras(f"{path}#cam{index:02d}").relative_to(0)
        assert cameras.metric
        ends[index] = (cameras.positions[-1], cameras.rotations[-1][:, 2])
    assert ends[1][1][0] > 0.3  # pan right
    assert ends[2][1][0] < -0.3  # pan left
    assert ends[3][1][1] < -0.1  # tilt up: y points down
    assert ends[4][1][1] > 0.1  # tilt down
    np.testing.assert_allclose(ends[5][0], (0, 0, 1.9876), atol=1e-4)  # dolly in 2 m
    np.testing.assert_allclose(ends[6][0], (0, 0, -1.9876), atol=1e-4)
    assert ends[7][0][1] < -0.9  # up by a metre,
    assert ends[7][1][1] > 0.2  # looking down
    assert ends[9][0][0] < -1.9  # arc to the left,
    assert ends[9][1][0] > 0.4  # looking right
