"""Resizing and cropping: rays keep pointing at what the pixels show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camctrl_jax.camera import plucker_map
from camctrl_jax.camera.framing import Framing, null_intrinsics, relative_to_first
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import write_mp4

SIZES = st.tuples(st.integers(20, 300), st.integers(20, 300))
UNIT = st.floats(0.0, 1.0)


def directions(intrinsics: np.ndarray, height: int, width: int) -> np.ndarray:
    """f64 [H, W, 2]: x/z and y/z of every pixel centre, computed from scratch."""
    fx, fy, cx, cy = intrinsics * (width, height, width, height)
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    return np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1)


@settings(deadline=None)
@given(SIZES, SIZES, UNIT, UNIT)
def test_cropped_rays_are_the_rays_of_the_crop(source, target, vertical, horizontal):
    intrinsics = np.array([0.9, 1.3, 0.48, 0.53])
    framing = Framing.cover(source, target, (vertical, horizontal))
    # Squashing keeps normalised intrinsics, so the resized picture has the rays of the source's intrinsics.
    whole = directions(intrinsics, *framing.resized)
    np.testing.assert_allclose(
        directions(framing.intrinsics(intrinsics), *target), framing.crop(whole), rtol=0, atol=1e-12
    )


def test_plucker_of_the_crop_is_the_crop_of_the_plucker():
    framing = Framing.cover((48, 100), (32, 48), anchor=(0.3, 0.8))
    pose = np.array([[0.8, 0, 0.6, 1.0], [0, 1, 0, -0.5], [-0.6, 0, 0.8, 2.0], [0, 0, 0, 1]])
    intrinsics = np.array([0.6, 1.25, 0.5, 0.5])
    whole = np.asarray(plucker_map(pose, intrinsics, *framing.resized))
    cropped = np.asarray(plucker_map(pose, framing.intrinsics(intrinsics), *framing.target))
    np.testing.assert_allclose(cropped, framing.crop(whole), atol=2e-6)


@settings(deadline=None)
@given(SIZES, SIZES)
def test_the_target_is_covered_and_one_side_fits(source, target):
    framing = Framing.cover(source, target)
    height, width = framing.resized
    assert height >= target[0]
    assert width >= target[1]
    assert height == target[0] or width == target[1]
    assert 0 <= framing.top <= height - target[0]
    assert 0 <= framing.left <= width - target[1]
    # The aspect ratio of the source is kept to within the rounding of one pixel.
    assert abs(height / source[0] - width / source[1]) <= 1.0 / min(source) + 1e-9


@pytest.mark.parametrize("source", [(60, 120), (120, 60), (33, 57)])
def test_pictures_follow_their_rays(tmp_path, source):
    """A picture that shows its own ray directions still shows them after resizing and cropping."""
    intrinsics = np.array([0.9, 0.9 * source[1] / source[0], 0.5, 0.5])
    slopes = np.moveaxis(directions(intrinsics, *source), -1, 0)[
        ..., None
    ]  # [2, H, W, 1]: x, then y, in grey
    reach = np.abs(slopes).max()
    pictures = np.round(np.tile(slopes / reach * 110 + 128, (1, 1, 1, 3))).astype(np.uint8)
    write_mp4(tmp_path / "rays.mp4", pictures, fps=1, crf=1)
    framing = Framing.cover(source, (32, 48), anchor=(0.2, 0.9))
    framed = read_video(tmp_path / "rays.mp4", size=source, framing=framing)[..., 1]
    expected = np.moveaxis(directions(framing.intrinsics(intrinsics), 32, 48), -1, 0) / reach * 110 + 128
    error = (framed - expected)[:, 2:-2, 2:-2]
    assert np.abs(error).mean() < 1.0
    assert np.abs(error.mean(axis=(1, 2))).max() < 0.6  # half a pixel of shift would be more than one level


def test_default_intrinsics_have_square_pixels():
    np.testing.assert_allclose(null_intrinsics(96, 160) * (160, 96, 160, 96), [96, 96, 80, 48])


def test_relative_poses_start_at_exactly_the_identity():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(2, 4, 3, 3)))
    poses = np.tile(np.eye(4), (2, 4, 1, 1))
    poses[..., :3, :3], poses[..., :3, 3] = rotation, 1e4 * rng.normal(size=(2, 4, 3))
    relative = relative_to_first(poses)
    np.testing.assert_array_equal(relative[:, 0], np.tile(np.eye(4), (2, 1, 1)))
    np.testing.assert_allclose(relative, np.linalg.inv(poses[:, :1]) @ poses, atol=1e-9)
