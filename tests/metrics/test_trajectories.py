"""Alignment and errors against a published evaluation tool, and on paths where it refuses."""

import json

import numpy as np
import pytest

from camctrl_jax.camera import load_cameras, preset, rotations
from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.trajectories import (
    align_positions,
    align_rotations,
    path_errors,
    roughness,
    spread_ratio,
)

CLIPS = ("0bf152ef84195293", "0c11dbe781b1c11c", "0c9b371cc6225682", "0f47577ab3441480", "0f68374b76390082")
STRAIGHT = ("look_left", "pan_down", "pan_left", "rotate_clockwise", "stationary", "zoom_in")


def pair(test_data, folder, references, name):
    """(estimate, reference, what the tool reports); its references are projected onto rotations."""
    expected = json.loads(test_data(f"{folder}/{name}.expected.json").read_text())
    reference = load_cameras(test_data(f"{references}/{name}.txt")).orthonormalised().world_from_camera
    estimate = load_cameras(test_data(f"{folder}/{name}.est.txt")).world_from_camera
    return estimate, reference, expected


def noisy(poses, generator, share=0.02, degrees=1.0):
    """An estimate: noise on positions and rotations, then any similarity."""
    noise = poses.copy()
    span = np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0)) or 1.0
    noise[:, :3, 3] += generator.normal(size=(len(poses), 3)) * share * span
    turns = rotations.from_vectors(np.radians(generator.normal(size=(len(poses), 3)) * degrees))
    noise[:, :3, :3] = noise[:, :3, :3] @ turns
    world = rotations.from_vectors(generator.normal(size=(1, 3)))[0]
    noise[:, :3, :3] = world @ noise[:, :3, :3]
    noise[:, :3, 3] = 0.4 * noise[:, :3, 3] @ world.T + generator.normal(size=3)
    return noise


@pytest.mark.parametrize("name", CLIPS)
def test_real_paths_read_what_the_published_tool_reports(test_data, name):
    estimate, reference, expected = pair(test_data, "evo_re10k", "re10k_cameractrl/pose_files", name)
    errors, tool = path_errors(estimate, reference), expected["sim3"]
    assert errors.trans_err == pytest.approx(tool["ape_translation"]["mean"], rel=1e-6)
    assert errors.rot_err_deg == pytest.approx(tool["ape_rotation_deg"]["mean"], rel=1e-6)
    assert errors.rpe_trans == pytest.approx(tool["rpe_translation_delta1"]["mean"], rel=1e-6)
    assert errors.rpe_rot_deg == pytest.approx(tool["rpe_rotation_deg_delta1"]["mean"], rel=1e-6)
    assert errors.scale == pytest.approx(tool["alignment_est_to_ref"]["s"], rel=1e-6)
    sums = expected["relative_first_frame_sum"]
    assert errors.sum_rot_first_rad == pytest.approx(sums["RotErr_rad_sum"], rel=1e-6)
    assert errors.sum_trans_first == pytest.approx(sums["TransErr_rel_sum"], rel=1e-6)
    # The noise was 1 degree an axis: 1.6 degrees in all, whatever the shape of the path.
    assert 1.4 < errors.rot_err_aligned_deg < 2.0


@pytest.mark.parametrize("name", ["fr1_xyz_ORB_kf_mono", "fr1_xyz_rgbdslam", "fr1_xyz_rgbdslam_drift"])
def test_slam_paths_read_what_the_published_tool_reports(test_data, name):
    expected = json.loads(test_data(f"evo/expected_{name}.json").read_text())["modes"]["sim3"]
    with np.load(test_data(f"evo/associated_{name}.npz")) as poses:
        errors = path_errors(poses["est_c2w"], poses["ref_c2w"])
    assert errors.trans_err == pytest.approx(expected["ape_translation_m"]["mean"], rel=1e-9)
    assert errors.rot_err_deg == pytest.approx(expected["ape_rotation_deg"]["mean"], rel=1e-9)
    assert errors.rpe_trans == pytest.approx(expected["rpe_translation_m_delta1frame"]["mean"], rel=1e-9)
    assert errors.rpe_rot_deg == pytest.approx(expected["rpe_rotation_deg_delta1frame"]["mean"], rel=1e-9)
    assert not errors.degenerate


def test_a_long_path_reads_what_the_published_tool_reports(test_data):
    estimate = load_cameras(test_data("tartanair/pose_est.txt")).world_from_camera
    reference = load_cameras(test_data("tartanair/pose_gt.txt")).world_from_camera
    errors = path_errors(estimate, reference)
    assert errors.trans_err == pytest.approx(0.750226, abs=1e-6)
    assert errors.rot_err_deg == pytest.approx(8.375066, abs=1e-6)
    assert errors.scale == pytest.approx(1.073630, abs=1e-6)


@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_turning_and_standing_paths_are_flagged_and_stay_sound(test_data, name):
    estimate, reference, expected = pair(test_data, "evo_degenerate", "presets_cami2v", name)
    errors = path_errors(estimate, reference)
    assert errors.degenerate
    assert errors.rot_err_deg > 20.0  # what an alignment by positions says: the tool refuses, or says 79
    assert 1.2 < errors.rot_err_aligned_deg < 1.8
    assert 1.5 < errors.rot_err_first_deg < 2.6  # the first frame's own noise is in it
    assert errors.sum_rot_first_rad == pytest.approx(
        expected["relative_first_frame_sum"]["RotErr_rad_sum"], rel=1e-6
    )


def test_a_path_with_a_bend_is_not_flagged(test_data):
    estimate, reference, expected = pair(test_data, "evo_degenerate", "presets_cami2v", "orbit_left")
    errors = path_errors(estimate, reference)
    assert not errors.degenerate
    assert errors.rot_err_deg == pytest.approx(expected["sim3"]["ape_rotation_deg"]["mean"], rel=1e-6)


REAL = [f"re10k_cameractrl/pose_files/{name}.txt" for name in CLIPS]
REAL += [
    f"motionctrl_rt/test_camera_{name}.json"
    for name in ("018f7907401f2fef", "088b93f15ca8745d", "1424acd0007d40b5")
]


@pytest.mark.parametrize("path", REAL)
def test_the_aligned_form_reads_the_noise_whatever_the_shape(test_data, path):
    """Eight real paths of RealEstate10K, second over first singular value from 0.02 to 0.25."""
    poses = load_cameras(test_data(path)).orthonormalised().world_from_camera
    generator = np.random.default_rng(0)
    draws = [path_errors(noisy(poses, generator), poses) for _ in range(40)]
    assert 1.4 < np.median([errors.rot_err_aligned_deg for errors in draws]) < 1.7
    assert max(errors.rot_err_aligned_deg for errors in draws) < 2.1
    # Noise of 2 % of the span makes none of them jitter: only its shape flags a path.
    bent = path_errors(poses, poses).spread_ratio > 0.22
    assert not bent or not any(errors.degenerate for errors in draws)
    if path_errors(poses, poses).spread_ratio < 0.15:
        assert np.median([errors.rot_err_deg for errors in draws]) > 2.5  # and the other form does not
        assert np.mean([errors.degenerate for errors in draws]) > 0.8


@pytest.mark.parametrize("frames", [8, 16, 49])
@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_a_camera_on_a_tripod_is_flagged_whatever_its_jitter(frames, size):
    generator, flagged, wrong = np.random.default_rng(frames), 0, []
    for _ in range(50):
        poses = preset("pan_left", frames).world_from_camera.copy()
        poses[:, :3, 3] = generator.normal(size=(frames, 3)) * size
        estimate = poses.copy()
        estimate[:, :3, 3] = generator.normal(size=(frames, 3)) * size
        errors = path_errors(estimate, poses)
        flagged += errors.degenerate
        wrong.append(errors.rot_err_deg)
        assert errors.rot_err_aligned_deg == pytest.approx(0.0, abs=1e-6)
    assert flagged >= 49
    assert np.median(wrong) > 20.0  # what is not to be read


def test_a_small_smooth_sway_needs_the_depth_of_the_scene_to_be_flagged():
    poses = preset("orbit_left", 25, degrees=120.0).world_from_camera.copy()
    poses[:, :3, 3] *= 1e-3
    extent = np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0), axis=1).max()
    assert not path_errors(poses, poses).degenerate
    assert path_errors(poses, poses, scene_depth=51.0 * extent).degenerate
    assert not path_errors(poses, poses, scene_depth=49.0 * extent).degenerate


def test_roughness_of_motion_and_of_noise():
    line = np.arange(16.0)[:, None] * np.array([1.0, 2.0, 3.0])
    variance = (16**2 - 1) / 12  # of 0 .. 15
    assert roughness(line) == pytest.approx(1.0 / variance)
    assert roughness(1e-6 * line + 5.0) == pytest.approx(1.0 / variance, rel=1e-6)
    there_and_back = np.concatenate([line[::2], line[::-2]])
    assert roughness(there_and_back) < 0.3
    assert roughness(np.random.default_rng(0).normal(size=(2000, 3))) == pytest.approx(2.0, abs=0.1)
    assert roughness(np.ones((9, 3))) == 0.0
    bends = np.array([[[0, 0, 0], [1.0, 0, 0], [1, y, 0]] for y in (0.3, 1.0, 3.0)])
    assert min(roughness(bend) for bend in bends) >= 1.5  # three poses: jitter, for all that is known
    assert path_errors(*[np.tile(np.eye(4), (3, 1, 1))] * 2).degenerate


@pytest.mark.parametrize("name", ["orbit_left", "spiral_in", "dolly_in", "pan_left", "static"])
def test_a_similar_path_has_no_error(name):
    poses = preset(name, 25).world_from_camera if name != "static" else np.tile(np.eye(4), (25, 1, 1))
    moved = noisy(poses, np.random.default_rng(1), share=0.0, degrees=0.0)
    errors = path_errors(moved, poses)
    for value in (errors.trans_err_aligned, errors.rot_err_aligned_deg, errors.trans_err_first):
        assert value == pytest.approx(0.0, abs=1e-6)
    if not errors.degenerate:
        assert errors.trans_err == pytest.approx(0.0, abs=1e-9)
        assert errors.rot_err_deg == pytest.approx(0.0, abs=1e-6)
        assert errors.scale == pytest.approx(2.5)


def test_a_standing_estimate_of_a_moving_camera_costs_the_path(test_data):
    poses = preset("dolly_in", 25).world_from_camera
    still = np.tile(np.eye(4), (25, 1, 1))
    errors = path_errors(still, poses)
    assert errors.scale == 1.0
    centre = poses[:, :3, 3].mean(axis=0)
    assert errors.trans_err == pytest.approx(np.linalg.norm(poses[:, :3, 3] - centre, axis=1).mean())


def test_a_path_that_goes_the_other_way_costs_the_same_whatever_its_unit():
    poses = preset("orbit_left", 25).world_from_camera
    for unit in (1.0, 1000.0):
        backwards = poses.copy()
        backwards[:, :3, 3] *= -unit
        errors = path_errors(backwards, poses)
        spread = np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0), axis=1).mean()
        assert errors.trans_err_aligned == pytest.approx(spread)
        assert errors.trans_err_first == pytest.approx(
            np.linalg.norm(poses[1:, :3, 3] - poses[0, :3, 3], axis=1).mean()
        )


def test_a_straight_or_standing_estimate_of_a_bent_path_is_flagged():
    poses = preset("orbit_left", 25, degrees=120.0).world_from_camera
    straight, still = poses.copy(), poses.copy()
    straight[:, 1:3, 3] = 0.0
    still[:, :3, 3] = 0.0
    assert not path_errors(poses, poses).degenerate
    assert path_errors(straight, poses).degenerate
    assert path_errors(still, poses).degenerate


def test_a_mirrored_estimate_is_not_aligned_by_a_reflection():
    poses = preset("spiral_in", 25).world_from_camera
    mirror = np.diag([-1.0, 1.0, 1.0])
    points = poses[:, :3, 3] @ mirror
    similarity = align_positions(points, poses[:, :3, 3])
    assert np.linalg.det(similarity.rotation) == pytest.approx(1.0)


def test_rotations_are_averaged_over_frames():
    poses = preset("pan_left", 9).world_from_camera
    world = rotations.from_vectors(np.array([[0.3, -0.2, 0.5]]))[0]
    moved = poses.copy()
    moved[:, :3, :3] = world @ poses[:, :3, :3]
    assert align_rotations(moved, poses).rotation == pytest.approx(world.T, abs=1e-12)


def test_the_spread_of_a_line_a_point_and_a_square():
    assert spread_ratio(np.zeros((5, 3))) == 0.0
    assert spread_ratio(np.linspace(0, 1, 5)[:, None] * np.array([1.0, 2.0, 3.0])) < 1e-12
    assert spread_ratio(np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, -1.0, 0]])) == pytest.approx(
        1.0
    )


@pytest.mark.parametrize(
    ("estimate", "reference", "message"),
    [
        (np.eye(4)[None], np.eye(4)[None], "of 2 frames or more"),
        (np.tile(np.eye(4), (3, 1, 1)), np.tile(np.eye(4), (4, 1, 1)), "3 poses and the reference 4"),
        (np.full((3, 4, 4), np.nan), np.tile(np.eye(4), (3, 1, 1)), "estimated path holds NaN"),
    ],
)
def test_paths_that_cannot_be_compared_are_named(estimate, reference, message):
    with pytest.raises(InvalidValue, match=message):
        path_errors(estimate, reference)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda poses: np.diag([-1.0, 1.0, 1.0, 1.0]) @ poses,
        lambda poses: poses * np.array([[2.0, 2.0, 2.0, 1.0]]),
        lambda poses: np.swapaxes(poses, 1, 2),
    ],
    ids=["mirrored", "scaled", "transposed"],
)
def test_poses_that_are_no_rigid_motions_have_no_errors(break_it):
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = np.arange(1.0, 6.0)
    for pair in ((break_it(poses), poses), (poses, break_it(poses))):
        with pytest.raises(InvalidValue, match="no rigid motions"):
            path_errors(*pair)
