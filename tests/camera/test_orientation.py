"""Turned and mirrored pictures meet turned and mirrored cameras."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.orientation import Orientation, told_by_size

ALL = [Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def a_camera() -> Cameras:
    """One frame, turned and off the origin, with unequal focal lengths and an off-centre axis."""
    angle = 0.3
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = 0.4, -0.2, 0.1
    return Cameras(pose[None], np.array([[0.9, 1.3, 0.45, 0.6]]))


def pixel_of(camera: Cameras, point: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(row, column) where a world point is seen."""
    x, y, z = (np.linalg.inv(camera.world_from_camera[0]) @ [*point, 1.0])[:3]
    fx, fy, cx, cy = camera.intrinsics[0]
    return np.array([(fy * y / z + cy) * size[0], (fx * x / z + cx) * size[1]])


@pytest.mark.parametrize("orientation", ALL, ids=str)
def test_a_point_lands_on_the_turned_pixel(orientation):
    stored = (40, 60)
    camera = a_camera()
    turned = orientation.cameras(camera)
    world = camera.world_from_camera[0]
    for row, column in ((7, 11), (33, 50), (20, 3)):
        fx, fy, cx, cy = camera.intrinsics[0]
        ray = [((column + 0.5) / stored[1] - cx) / fx, ((row + 0.5) / stored[0] - cy) / fy, 1.0]
        point = (world @ [*(2.5 * np.array(ray)), 1.0])[:3]
        picture = np.zeros((*stored, 1))
        picture[row, column] = 1.0
        shown = orientation.apply(picture)
        assert shown.shape[:2] == orientation.size(stored)
        found = np.argwhere(shown[..., 0])[0]
        # A mirrored world is seen by a mirrored camera: its points have their x exchanged.
        seen = point * (-1, 1, 1) if orientation.mirrored else point
        np.testing.assert_allclose(pixel_of(turned, seen, shown.shape[:2]), found + 0.5, atol=1e-9)


@pytest.mark.parametrize("orientation", ALL, ids=str)
def test_turned_cameras_are_rotations(orientation):
    rotation = orientation.cameras(a_camera()).world_from_camera[0, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_four_turns_are_none_and_pictures_may_have_leading_axes():
    camera = a_camera()
    once = Orientation(1)
    four = once.cameras(once.cameras(once.cameras(once.cameras(camera))))
    np.testing.assert_allclose(four.world_from_camera, camera.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(four.intrinsics, camera.intrinsics, atol=1e-12)
    video = np.random.default_rng(0).random((3, 4, 6, 2))
    np.testing.assert_array_equal(once.apply(video)[1], np.rot90(video[1]))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((108, 192), "stored"),
        ((480, 832), "stored"),  # nearly its shape
        ((720, 960), "stored"),  # another shape, but lying
        ((960, 720), "shown"),
        ((1080, 600), "shown"),
        ((512, 512), "unknown"),
        (None, "unknown"),
    ],
)
def test_upright_or_lying_tells_whether_poses_belong_to_the_stored_picture(told, expected):
    assert told_by_size(told, (108, 192), (192, 108)) == expected


def test_nothing_tells_of_a_mirrored_or_a_square_picture():
    assert told_by_size((108, 192), (108, 192), (108, 192)) == "unknown"
    assert told_by_size((108, 192), (200, 201), (201, 200)) == "unknown"
