"""Scripted paths do what their class says."""

import numpy as np
import pytest

from camctrl_jax.camera import PRESETS, preset
from camctrl_jax.worlds import Move, sample_world
from camctrl_jax.worlds.paths import MOVES, Start, path_class, path_poses

START = Start(np.array([0.4, -1.5, -0.2]), yaw=0.3, pitch=-0.1, pivot=4.5)
FRAMES = 9


def relative(poses):
    return np.linalg.inv(poses[0]) @ poses


def single(name, amplitude):
    return path_poses(START, (Move(name, amplitude, 0.0, FRAMES - 1.0),), "smooth", FRAMES)


def angle(rotation):
    return np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))


@pytest.mark.parametrize("name", MOVES)
def test_poses_are_rigid_and_start_at_the_start(name):
    poses = single(name, np.mean(MOVES[name]))
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (9, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1.0)
    np.testing.assert_allclose(poses[0, :3, 3], START.center)
    assert poses[0, 1, 0] == pytest.approx(0.0)  # level: the right axis is horizontal


@pytest.mark.parametrize(
    "name", [name for name in MOVES if name.split("_")[0] in ("truck", "pedestal", "dolly")]
)
def test_translations_have_their_amplitude_and_no_rotation(name):
    poses = single(name, 0.7)
    shift = poses[-1, :3, 3] - poses[0, :3, 3]
    forward = np.array([np.sin(0.3), 0.0, np.cos(0.3)])
    way = {
        "truck": np.array([np.cos(0.3), 0.0, -np.sin(0.3)]),
        "pedestal": np.array([0.0, -1.0, 0.0]),
        "dolly": forward,
    }
    sign = -1.0 if name.split("_")[1] in ("left", "down", "out") else 1.0
    np.testing.assert_allclose(shift, sign * 0.7 * way[name.split("_")[0]], atol=1e-12)
    assert angle(poses[0, :3, :3].T @ poses[-1, :3, :3]) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in MOVES if name.split("_")[0] in ("pan", "tilt", "roll")])
def test_rotations_have_their_amplitude_and_no_translation(name):
    poses = path_poses(
        Start(START.center, 0.3, 0.0, 4.5), (Move(name, 6.0, 0.0, FRAMES - 1.0),), "linear", FRAMES
    )
    np.testing.assert_allclose(poses[:, :3, 3], np.tile(START.center, (FRAMES, 1)))
    assert angle(poses[0, :3, :3].T @ poses[-1, :3, :3]) == pytest.approx(6.0, abs=1e-4)


@pytest.mark.parametrize("name", ["orbit_left", "orbit_right", "arc_left", "arc_right"])
def test_orbits_keep_their_pivot_in_the_same_place_of_the_picture(name):
    start = Start(START.center, 0.3, 0.0, 4.5)
    poses = path_poses(start, (Move(name, 20.0, 0.0, FRAMES - 1.0),), "smooth", FRAMES)
    distance = 4.5 if name.startswith("orbit") else 4.5 * 1.8
    pivot = START.center + distance * np.array([np.sin(0.3), 0.0, np.cos(0.3)])
    for pose in poses:
        np.testing.assert_allclose(pose[:3, :3].T @ (pivot - pose[:3, 3]), [0, 0, distance], atol=1e-9)


@pytest.mark.parametrize("name", ["curve_left", "curve_right"])
def test_curves_look_along_the_path(name):
    poses = path_poses(Start(START.center, 0.3, 0.0, 4.5), (Move(name, 30.0, 0.0, 60.0),), "linear", 61)
    steps = np.diff(poses[:, :3, 3], axis=0)
    heading = poses[:-1, :3, 2] + poses[1:, :3, 2]
    cosine = (steps * heading).sum(1) / np.linalg.norm(steps, axis=1) / np.linalg.norm(heading, axis=1)
    assert cosine.min() > 1 - 1e-9


@pytest.mark.parametrize("name", sorted(set(MOVES) & set(PRESETS)))
def test_moves_go_the_way_of_the_preset_of_that_name(name):
    """The same word means the same direction for a world and for a user's path."""
    ours = relative(
        path_poses(Start(START.center, 0.0, 0.0, 3.0), (Move(name, MOVES[name][0], 0.0, 8.0),), "linear", 9)
    )
    theirs = relative(preset(name, 9).world_from_camera)
    step, other = ours[1, :3, 3], theirs[1, :3, 3]
    assert np.linalg.norm(step) < 1e-9 if np.linalg.norm(other) < 1e-9 else step @ other > 0
    turn, other = (pose[1, :3, :3] - pose[1, :3, :3].T for pose in (ours, theirs))
    assert np.abs(turn).max() < 1e-9 if np.abs(other).max() < 1e-9 else (turn * other).sum() > 0


def test_windows_are_respected():
    moves = (Move("dolly_in", 1.0, 0.0, 4.0), Move("truck_left", 0.5, 4.0, 8.0))
    poses = path_poses(Start(np.zeros(3), 0.0, 0.0, 4.0), moves, "smooth", 9)
    np.testing.assert_allclose(poses[4, :3, 3], [0.0, 0.0, 1.0])
    np.testing.assert_allclose(poses[8, :3, 3], [-0.5, 0.0, 1.0])
    assert (np.abs(poses[:5, 0, 3]) < 1e-12).all()


def test_path_class_names_what_is_together_and_what_follows():
    assert path_class(()) == "static"
    assert path_class((Move("truck_left", 1, 0, 8), Move("pan_right", 9, 0, 8))) == "pan_right+truck_left"
    assert path_class((Move("truck_left", 1, 4, 8), Move("dolly_in", 1, 0, 4))) == "dolly_in then truck_left"


def test_sampled_paths_are_the_sum_of_their_moves():
    """Yaw, height and class of a sampled world follow from its recorded moves."""
    yaw_signs = {
        "pan_right": 1,
        "pan_left": -1,
        "orbit_right": -1,
        "orbit_left": 1,
        "arc_right": -1,
        "arc_left": 1,
    }
    yaw_signs |= {"curve_right": 1, "curve_left": -1}
    kinds = set()
    for seed in range(40):
        world = sample_world(seed)
        assert path_class(world.moves) == world.path_class
        forward = world.cameras.world_from_camera[[0, -1], :3, 2]
        turned = np.degrees(np.subtract(*np.arctan2(forward[:, 0], forward[:, 2])[::-1]))
        assert turned == pytest.approx(
            sum(yaw_signs.get(m.name, 0) * m.amplitude for m in world.moves), abs=1e-6
        )
        risen = -(world.cameras.positions[-1, 1] - world.cameras.positions[0, 1])
        signs = {"pedestal_up": 1, "pedestal_down": -1}
        assert risen == pytest.approx(sum(signs.get(m.name, 0) * m.amplitude for m in world.moves), abs=1e-9)
        kinds |= {m.name for m in world.moves}
        for move in world.moves:
            assert 0 < move.amplitude <= MOVES[move.name][1]
            assert 0 <= move.start < move.stop <= 48
    assert len(kinds) >= 12
