"""The camera path type: group laws, measures, immutability, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import paths, properties, rigid
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import CameraError, Cameras, load_cameras, save_cameras

INTRINSICS = (0.6, 1.0, 0.5, 0.5)


def straight(frames: int = 5) -> Cameras:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames)
    return Cameras(poses, INTRINSICS)


@properties
@given(paths(), st.integers(0, 1000))
def test_relative_path_ignores_the_choice_of_world(cameras, seed):
    moved = cameras.transformed(rigid(seed))
    np.testing.assert_allclose(
        moved.relative_to(0).world_from_camera, cameras.relative_to(0).world_from_camera, atol=1e-10
    )


@properties
@given(paths(min_frames=3))
def test_relative_poses_compose(cameras):
    # a_from_c = a_from_b b_from_c, whatever the reference.
    last = len(cameras) - 1
    through = cameras.relative_to(0).world_from_camera[1] @ cameras.relative_to(1).world_from_camera[last]
    np.testing.assert_allclose(through, cameras.relative_to(0).world_from_camera[last], atol=1e-10)
    np.testing.assert_allclose(cameras.relative_to(1).world_from_camera[1], np.eye(4), atol=1e-12)


@properties
@given(paths())
def test_inverse_is_an_involution(cameras):
    identity = cameras.camera_from_world @ cameras.world_from_camera
    np.testing.assert_allclose(identity, np.tile(np.eye(4), (len(cameras), 1, 1)), atol=1e-12)


@properties
@given(paths(), st.integers(0, 1000), st.floats(0.1, 10))
def test_lengths_and_angles_do_not_depend_on_the_world(cameras, seed, factor):
    moved = cameras.transformed(rigid(seed)).scaled(factor)
    assert moved.path_length == pytest.approx(factor * cameras.path_length)
    assert moved.total_rotation == pytest.approx(cameras.total_rotation, abs=1e-5)
    assert moved.net_rotation == pytest.approx(cameras.net_rotation, abs=1e-5)


@properties
@given(paths())
def test_reversing_twice_restores_the_path(cameras):
    twice = cameras.reversed().reversed()
    np.testing.assert_array_equal(twice.world_from_camera, cameras.world_from_camera)
    np.testing.assert_array_equal(twice.intrinsics, cameras.intrinsics)
    if cameras.times is not None:
        np.testing.assert_allclose(twice.times, cameras.times)
        cameras.reversed().validate()


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.01, 90.0, 179.999, 180.0])
def test_rotation_angles_are_precise_at_both_ends(degrees):
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array((0.6, 0.0, 0.8))).as_matrix()
    assert Cameras(poses, INTRINSICS).net_rotation == pytest.approx(degrees, rel=1e-7, abs=1e-12)


def test_is_immutable_and_does_not_share_its_input():
    poses = np.tile(np.eye(4), (2, 1, 1))
    cameras = Cameras(poses, INTRINSICS)
    poses[0, 0, 3] = 7.0
    assert cameras.positions[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        cameras.world_from_camera[0, 0, 3] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        cameras.positions[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        cameras.metric = True


def test_indexing_keeps_fields_together():
    cameras = dataclasses.replace(straight(), metric=True).with_fps(10)
    picked = cameras[[4, 1]]
    np.testing.assert_array_equal(picked.positions[:, 2], (4, 1))
    np.testing.assert_allclose(picked.times, (0.4, 0.1))
    assert picked.metric
    assert len(cameras[1:3]) == 2
    assert len(cameras[-1]) == 1
    with pytest.raises(IndexError, match="frame 5 of a path of 5"):
        cameras[5]
    assert [single.positions[0, 2] for single in cameras] == [0, 1, 2, 3, 4]


def test_field_of_view_is_of_the_whole_picture():
    poses = np.eye(4)[None]
    np.testing.assert_allclose(Cameras(poses, (0.5, 0.5, 0.5, 0.5)).fov_degrees, [[90.0, 90.0]])


@pytest.mark.parametrize(
    ("poses", "intrinsics", "times", "message"),
    [
        (np.eye(4), INTRINSICS, None, r"shape \(4, 4\); expected \[frames, 4, 4\]"),
        (
            np.tile(np.eye(4), (5, 1, 1)),
            np.ones((4, 4)),
            None,
            r"shape \(4, 4\) for 5 poses; expected \[5, 4\]",
        ),
        (np.tile(np.eye(4), (5, 1, 1)), INTRINSICS, np.arange(4), r"times have shape \(4,\) for 5 poses"),
    ],
)
def test_wrong_counts_are_refused_when_built(poses, intrinsics, times, message):
    with pytest.raises(CameraError, match=message):
        Cameras(poses, intrinsics, times)


def broken(change) -> Cameras:
    poses, intrinsics, times = np.tile(np.eye(4), (4, 1, 1)), np.tile(INTRINSICS, (4, 1)), np.arange(4.0)
    change(poses, intrinsics, times)
    return Cameras(poses, intrinsics, times)


def _nan(poses, intrinsics, times):
    poses[2, 1, 3] = np.nan


def _not_orthonormal(poses, intrinsics, times):
    poses[2, 0, 1] = 0.02


def _scaled(poses, intrinsics, times):
    poses[2, :3, :3] *= 2.0


def _mirrored(poses, intrinsics, times):
    poses[2, 0, 0] = -1.0


def _transposed(poses, intrinsics, times):
    poses[2, 3, :3] = (1, 2, 3)


def _pixels(poses, intrinsics, times):
    intrinsics[2] = (500, 500, 320, 240)


def _no_focal(poses, intrinsics, times):
    intrinsics[2, 0] = 0.0


def _nan_intrinsics(poses, intrinsics, times):
    intrinsics[2, 3] = np.nan


def _time_repeats(poses, intrinsics, times):
    times[2] = times[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "frame 2: the pose holds NaN"),
        (_not_orthonormal, r"frame 2: the rotation is not orthonormal: \|R\^T R - I\| reaches 0.02"),
        (_scaled, r"frame 2: .* reaches 3, .*orthonormalised\(\)"),
        (_mirrored, "frame 2: the rotation has determinant -1.000"),
        (_transposed, "frame 2: the last row of the pose is .* is the matrix transposed"),
        (
            _pixels,
            r"frame 2: the intrinsics \(500, 500, 320, 240\) look like pixels; .*image_size=\(height, "
            r"width\)",
        ),
        (_no_focal, "frame 2: the focal lengths .* are not positive"),
        (_nan_intrinsics, "frame 2: the intrinsics .* hold NaN"),
        (_time_repeats, "frame 2: time 1.000000 s does not come after 1.000000 s"),
    ],
)
def test_validation_names_the_frame_the_value_and_the_remedy(change, message):
    with pytest.raises(CameraError, match=message):
        broken(change).validate("clip.txt")


def test_validation_names_the_file_and_the_line():
    with pytest.raises(CameraError, match=r"^clip.txt: line 9: the pose holds NaN"):
        broken(_nan).validate("clip.txt", [f"line {7 + frame}" for frame in range(4)])


def test_nothing_broken_is_written(tmp_path):
    with pytest.raises(CameraError, match="NaN"):
        save_cameras(broken(_nan), tmp_path / "path.txt")
    assert list(tmp_path.iterdir()) == []


def test_rounded_rotations_are_accepted_and_kept_as_they_are(tmp_path):
    rounded = np.eye(4)[None].copy()
    rounded[0, :3, :3] = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix().round(4)
    cameras = Cameras(rounded, INTRINSICS).validate()
    save_cameras(cameras, tmp_path / "path.txt", "realestate10k")
    again = load_cameras(tmp_path / "path.txt")
    np.testing.assert_allclose(again.world_from_camera, rounded, atol=1e-14)
    projected = cameras.orthonormalised().rotations[0]
    np.testing.assert_allclose(projected.T @ projected, np.eye(3), atol=1e-14)
    assert np.abs(projected - rounded[0, :3, :3]).max() < 1e-4


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
def test_scale_must_be_positive(factor):
    with pytest.raises(CameraError, match="expected a positive number"):
        straight().scaled(factor)


def test_scaling_moves_the_centres_only():
    scaled = straight().scaled(0.01, metric=True)
    assert scaled.metric
    np.testing.assert_allclose(scaled.positions, straight().positions * 0.01)
    np.testing.assert_array_equal(scaled.rotations, straight().rotations)
