"""Resampling, key frames, joining, mirroring and aiming."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import paths, properties

from camctrl_jax.camera import (
    EASINGS,
    CameraError,
    Cameras,
    compose,
    flip_horizontal,
    interpolate_keyframes,
    look_along_path,
    look_at,
    preset,
    resample,
    sample_at,
)
from camctrl_jax.camera.rotations import angle_degrees


@properties
@given(paths(), st.integers(1, 20))
def test_resampling_keeps_both_ends(cameras, frames):
    resampled = resample(cameras, frames)
    assert len(resampled) == frames
    resampled.validate()
    np.testing.assert_allclose(resampled.world_from_camera[0], cameras.world_from_camera[0], atol=1e-9)
    if frames > 1:
        np.testing.assert_allclose(resampled.world_from_camera[-1], cameras.world_from_camera[-1], atol=1e-9)
        np.testing.assert_allclose(resampled.intrinsics[-1], cameras.intrinsics[-1], atol=1e-12)
    assert resampled.metric == cameras.metric


@properties
@given(paths(min_frames=2, timed=False))
def test_resampling_to_the_same_count_restores_the_path(cameras):
    same = resample(cameras, len(cameras))
    np.testing.assert_allclose(same.world_from_camera, cameras.world_from_camera, atol=1e-9)
    np.testing.assert_allclose(same.intrinsics, cameras.intrinsics, atol=1e-12)


def test_resampling_interpolates_centres_not_extrinsic_translations():
    # A camera that turns on the spot far from the origin must stay on the spot.
    turning = preset("pan_left", 5, degrees=90).transformed(
        np.array([[1, 0, 0, 100.0], [0, 1, 0, 0], [0, 0, 1, 50.0], [0, 0, 0, 1]])
    )
    resampled = resample(turning, 33)
    np.testing.assert_allclose(resampled.positions, np.tile((100.0, 0, 50.0), (33, 1)), atol=1e-9)
    assert resampled.total_rotation == pytest.approx(90.0)


def test_resampling_goes_by_time_where_there_are_times():
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = (0.0, 1.0, 10.0)
    uneven = Cameras(poses, (0.6, 1.0, 0.5, 0.5), times=(0.0, 1.0, 10.0))
    np.testing.assert_allclose(resample(uneven, 11).positions[:, 0], np.arange(11.0), atol=1e-9)


def test_centres_do_not_overshoot():
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = (0, 0, 0, 1, 1, 1)  # a cubic spline would swing below 0 and above 1
    positions = resample(Cameras(poses, (0.6, 1.0, 0.5, 0.5)), 60).positions[:, 0]
    assert positions.min() >= 0.0
    assert positions.max() <= 1.0


def test_sampling_outside_holds_the_ends():
    path = preset("dolly_in", 13)
    ends = sample_at(path, (-1.0, 99.0))
    np.testing.assert_allclose(ends.positions, path.positions[[0, -1]])


def test_sampling_refuses_times_that_do_not_increase():
    repeated = dataclasses.replace(preset("dolly_in", 3), times=(0.0, 0.0, 1.0))
    with pytest.raises(CameraError, match="do not increase"):
        resample(repeated, 5)


@properties
@given(paths(min_frames=2, timed=True), st.sampled_from(list(EASINGS)))
def test_keyframe_path_starts_and_ends_on_its_keyframes(keyframes, easing):
    path = interpolate_keyframes(keyframes, 17, fps=8.0, easing=easing).validate()
    np.testing.assert_allclose(path.world_from_camera[0], keyframes.world_from_camera[0], atol=1e-8)
    np.testing.assert_allclose(path.world_from_camera[-1], keyframes.world_from_camera[-1], atol=1e-8)
    np.testing.assert_allclose(path.times, np.arange(17) / 8.0)


def test_keyframe_path_passes_through_every_keyframe_without_a_kink():
    corners = compose(
        preset("pan_left", 2, degrees=30),
        preset("tilt_up", 2, degrees=20),
        preset("pan_right", 2, degrees=40),
    )
    keyframes = dataclasses.replace(corners, times=(0.0, 1.0, 2.0, 3.0))
    path = interpolate_keyframes(keyframes, 301)
    np.testing.assert_allclose(path.rotations[[0, 100, 200, 300]], keyframes.rotations, atol=1e-8)
    # The turn's direction changes over several frames; slerp changes it within one.
    steps = np.swapaxes(path.rotations[:-1], 1, 2) @ path.rotations[1:]
    bends = angle_degrees(np.swapaxes(steps[:-1], 1, 2) @ steps[1:])
    slerped = resample(keyframes, 301).rotations
    kinks = np.swapaxes(slerped[:-1], 1, 2) @ slerped[1:]
    sharpest = angle_degrees(np.swapaxes(kinks[:-1], 1, 2) @ kinks[1:]).max()
    assert bends.max() < 0.2 * sharpest


@pytest.mark.parametrize("name", list(EASINGS))
def test_easings_run_from_0_to_1_without_going_back(name):
    progress = EASINGS[name](np.linspace(0.0, 1.0, 101))
    assert progress[0] == pytest.approx(0.0, abs=1e-12)
    assert progress[-1] == pytest.approx(1.0)
    assert (np.diff(progress) >= -1e-12).all()
    assert name == "linear" or np.abs(np.diff(progress, n=2)).max() > 1e-4


def test_unknown_easing_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown easing 'bouncy'; known are linear, smooth, ease_in, ease_out"
    ):
        interpolate_keyframes(preset("static", 3), 5, easing="bouncy")


@properties
@given(paths(min_frames=2, timed=True), paths(min_frames=2, timed=True), paths(min_frames=2, timed=True))
def test_joining_is_associative_and_continues_where_the_last_path_ended(a, b, c):
    a, b, c = (dataclasses.replace(path, metric=True) for path in (a, b, c))
    joined = compose(a, b, c)
    assert len(joined) == len(a) + len(b) + len(c) - 2
    joined.validate()
    nested = compose(a, compose(b, c))
    np.testing.assert_allclose(joined.world_from_camera, nested.world_from_camera, atol=1e-8)
    np.testing.assert_allclose(joined.times, nested.times)
    second = joined[len(a) - 1 : len(a) + len(b) - 1].relative_to(0).world_from_camera
    np.testing.assert_allclose(second, b.relative_to(0).world_from_camera, atol=1e-8)


def test_joining_refuses_to_mix_metres_with_unknown_units():
    metric = preset("dolly_in", 3)
    with pytest.raises(CameraError, match="metres"):
        compose(metric, dataclasses.replace(metric, metric=False))


@properties
@given(paths())
def test_flipping_twice_restores_the_path(cameras):
    flipped = flip_horizontal(cameras).validate()
    twice = flip_horizontal(flipped)
    np.testing.assert_array_equal(twice.world_from_camera, cameras.world_from_camera)
    np.testing.assert_allclose(twice.intrinsics, cameras.intrinsics, atol=1e-15)
    assert flipped.path_length == pytest.approx(cameras.path_length)


@pytest.mark.parametrize(
    ("name", "mirrored"),
    [
        ("truck_left", "truck_right"),
        ("pan_left", "pan_right"),
        ("orbit_left", "orbit_right"),
        ("roll_cw", "roll_ccw"),
        ("dolly_in", "dolly_in"),
        ("tilt_up", "tilt_up"),
    ],
)
def test_flipping_swaps_left_and_right_and_nothing_else(name, mirrored):
    flipped = flip_horizontal(preset(name, 9))
    np.testing.assert_allclose(flipped.world_from_camera, preset(mirrored, 9).world_from_camera, atol=1e-12)


def test_looking_at_a_point_puts_it_on_the_optical_axis_and_keeps_the_horizon():
    path = preset("truck_left_up", 9, metres=2)
    point = np.array((0.3, -0.2, 3.0))
    aimed = look_at(path, point).validate()
    np.testing.assert_array_equal(aimed.positions, path.positions)
    seen = aimed.camera_from_world @ (*point, 1.0)
    np.testing.assert_allclose(seen[:, :2], 0.0, atol=1e-12)
    assert (seen[:, 2] > 0).all()
    np.testing.assert_allclose(aimed.rotations[:, 1, 0], 0.0, atol=1e-12)  # the x axis is level


def test_looking_along_the_path_follows_it():
    aimed = look_along_path(preset("truck_left", 9)).validate()
    np.testing.assert_allclose(aimed.rotations[:, :, 2], np.tile((-1.0, 0, 0), (9, 1)), atol=1e-12)
    still = preset("pan_left", 9)
    np.testing.assert_allclose(look_along_path(still).rotations, still.rotations, atol=1e-12)
