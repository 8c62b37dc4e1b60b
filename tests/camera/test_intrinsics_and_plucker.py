"""Intrinsics under crop and resize, and what they and poses do to Pluecker maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import paths, properties

from camctrl_jax.camera import (
    centre_crop_box,
    crop_resize_intrinsics,
    flip_horizontal,
    intrinsics_from_pixels,
    intrinsics_in_pixels,
    plucker_map,
    preset,
)

jitted_map = jax.jit(plucker_map, static_argnums=(2, 3))


def test_crop_and_resize_by_hand():
    # 1280 x 720, f = 640 px, centre; the middle 720 x 720 resized to 256 x 256.
    before = intrinsics_from_pixels((640, 640, 640, 360), 720, 1280)
    after = crop_resize_intrinsics(before, (720, 1280), (0, 280, 720, 720), (256, 256))
    np.testing.assert_allclose(intrinsics_in_pixels(after, 256, 256), (640 * 256 / 720,) * 2 + (128, 128))


def test_squashing_leaves_fractions_alone():
    before = np.array((0.5, 0.9, 0.5, 0.5))
    after = crop_resize_intrinsics(before, (720, 1280), (0, 0, 720, 1280), (256, 384))
    np.testing.assert_array_equal(after, before)


@properties
@given(
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.data(),
)
def test_cropping_in_two_steps_is_cropping_once(size, data):
    height, width = size
    top, left = data.draw(st.integers(0, height - 2)), data.draw(st.integers(0, width - 2))
    box = (top, left, data.draw(st.integers(2, height - top)), data.draw(st.integers(2, width - left)))
    inner = (1, 1, box[2] - 1, box[3] - 1)
    start = np.array((0.7, 1.1, 0.45, 0.52))
    twice = crop_resize_intrinsics(crop_resize_intrinsics(start, size, box, box[2:]), box[2:], inner, (8, 8))
    once = crop_resize_intrinsics(start, size, (top + 1, left + 1, *inner[2:]), (8, 8))
    np.testing.assert_allclose(twice, once, rtol=1e-12)


@pytest.mark.parametrize("box", [(-1, 0, 10, 10), (0, 0, 11, 10), (0, 5, 10, 16), (0, 0, 0, 5)])
def test_crops_outside_the_picture_are_refused(box):
    with pytest.raises(ValueError, match="does not lie inside the 10 x 20 picture"):
        crop_resize_intrinsics((0.5, 0.5, 0.5, 0.5), (10, 20), box, (4, 4))


def test_target_size_must_be_positive():
    with pytest.raises(ValueError, match="target_hw"):
        crop_resize_intrinsics((0.5, 0.5, 0.5, 0.5), (10, 20), (0, 0, 10, 20), (0, 4))


@pytest.mark.parametrize(
    ("source", "target", "box"),
    [
        ((720, 1280), (96, 160), (0, 40, 720, 1200)),
        ((1280, 720), (96, 160), (424, 0, 432, 720)),
        ((96, 160), (96, 160), (0, 0, 96, 160)),
        ((101, 77), (50, 50), (12, 0, 77, 77)),
    ],
)
def test_centre_crop_is_the_largest_of_its_shape(source, target, box):
    assert centre_crop_box(source, target) == box


@properties
@given(paths(min_frames=2, max_frames=2))
def test_map_of_a_crop_is_the_crop_of_the_map(cameras):
    whole = np.asarray(jitted_map(cameras.world_from_camera, cameras.intrinsics, 8, 12))
    cropped = crop_resize_intrinsics(cameras.intrinsics, (8, 12), (2, 3, 4, 8), (4, 8))
    np.testing.assert_allclose(
        np.asarray(jitted_map(cameras.world_from_camera, cropped, 4, 8)), whole[:, 2:6, 3:11], atol=5e-6
    )


@properties
@given(paths(min_frames=2, max_frames=2))
def test_map_of_a_flipped_path_is_the_mirrored_map(cameras):
    original = np.asarray(jitted_map(cameras.world_from_camera, cameras.intrinsics, 6, 8))
    flipped = flip_horizontal(cameras)
    mirrored = original[:, :, ::-1] * np.array((1, -1, -1, -1, 1, 1))  # a moment mirrors as a pseudovector
    actual = np.asarray(jitted_map(flipped.world_from_camera, flipped.intrinsics, 6, 8))
    np.testing.assert_allclose(actual, mirrored, atol=5e-6)


@properties
@given(paths(min_frames=2, max_frames=2))
def test_rays_are_unit_lines(cameras):
    rays = np.asarray(jitted_map(cameras.world_from_camera, cameras.intrinsics, 5, 7), dtype=np.float64)
    np.testing.assert_allclose(np.linalg.norm(rays[..., 3:], axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose((rays[..., :3] * rays[..., 3:]).sum(-1), 0.0, atol=1e-5)


def test_reference_camera_has_no_moment_but_directions():
    rays = np.asarray(jitted_map(np.eye(4), np.array((0.6, 1.0, 0.5, 0.5)), 4, 6))
    np.testing.assert_array_equal(rays[..., :3], 0.0)
    # Odd sizes have a pixel in the very middle, which looks straight ahead.
    centre = np.asarray(jitted_map(np.eye(4), np.array((0.6, 1.0, 0.5, 0.5)), 5, 7))[2, 3]
    np.testing.assert_allclose(centre, (0, 0, 0, 0, 0, 1), atol=1e-7)


def test_leading_axes_broadcast_and_jit_agrees():
    path = preset("orbit_left", 5)
    poses = np.broadcast_to(path.world_from_camera, (2, 5, 4, 4))
    both = plucker_map(poses, np.array((0.6, 1.0, 0.5, 0.5)), 3, 4)
    assert both.shape == (2, 5, 3, 4, 6)
    assert both.dtype == jnp.float32
    jitted = jitted_map(poses, path.intrinsics, 3, 4)
    np.testing.assert_allclose(np.asarray(jitted), np.asarray(both), atol=1e-6)


def test_gradient_agrees_with_finite_differences():
    pose = preset("orbit_left", 3).world_from_camera[1].astype(np.float32)
    intrinsics = jnp.array((0.6, 1.0, 0.5, 0.5))
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 6)), jnp.float32)

    def loss(moved):
        return (jitted_map(moved, intrinsics, 3, 4) * weights).sum()

    gradient = np.asarray(jax.grad(loss)(pose))
    step = 1e-2
    for row, column in ((0, 3), (1, 3), (2, 0)):
        shift = np.zeros((4, 4), np.float32)
        shift[row, column] = step
        difference = (float(loss(pose + shift)) - float(loss(pose - shift))) / (2 * step)
        assert gradient[row, column] == pytest.approx(difference, rel=2e-2, abs=2e-3)
