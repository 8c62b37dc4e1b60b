"""Corruptions change what they say, where they say, and nothing else."""

import numpy as np
import pytest

from camctrl_jax.worlds import (
    Places,
    WorldsConfig,
    caption_phrasings,
    cut,
    freeze,
    jump,
    render,
    sample_world,
    shake,
    static_variant,
    zoom,
)
from camctrl_jax.worlds.paths import surface_distance
from camctrl_jax.worlds.places.solids import glance


@pytest.fixture(scope="module")
def world(moving_worlds):
    return moving_worlds[2]


def steps(world):
    """Translation (metres) and rotation (degrees) between neighbouring frames, [T-1] each."""
    return np.linalg.norm(np.diff(world.cameras.positions, axis=0), axis=1), world.cameras.rotation_steps


def untouched(world, other, frames):
    np.testing.assert_array_equal(
        world.cameras.world_from_camera[frames], other.cameras.world_from_camera[frames]
    )
    np.testing.assert_array_equal(world.cameras.intrinsics[frames], other.cameras.intrinsics[frames])


def test_shake_jitters_only_its_window_by_its_magnitude():
    world = sample_world(1)
    shaken, truth = shake(world, seed=0, start=10, stop=40, degrees=1.0, metres=0.03)
    assert truth.affected.tolist() == [10 <= t < 40 for t in range(49)]
    untouched(world, shaken, ~truth.affected)
    offset = shaken.cameras.positions[10:40] - world.cameras.positions[10:40]
    assert offset.std() == pytest.approx(0.03, rel=0.25)
    difference = shaken.cameras.rotations[10:40].transpose(0, 2, 1) @ world.cameras.rotations[10:40]
    angles = np.degrees(np.arccos(np.clip((np.trace(difference, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.sqrt((angles**2).mean() / 3) == pytest.approx(1.0, rel=0.25)
    shaken.cameras.validate()


def test_jump_is_one_step_of_its_size(world):
    jumped, truth = jump(world, seed=4, at=6, metres=0.8, degrees=10.0)
    assert truth.breaks == (6,)
    untouched(world, jumped, ~truth.affected)
    moved = jumped.cameras.positions[6:] - world.cameras.positions[6:]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.8)
    before, after = steps(world), steps(jumped)
    assert after[0].argmax() == 5
    np.testing.assert_allclose(np.delete(after[0], 5), np.delete(before[0], 5), atol=1e-9)
    np.testing.assert_allclose(np.delete(after[1], 5), np.delete(before[1], 5), atol=1e-5)
    assert surface_distance(jumped.scene, jumped.cameras.positions).min() > 0.3


def test_cut_shows_the_scene_from_another_side():
    done = 0
    for seed in range(12):
        world = sample_world(seed)
        cut_world, truth = cut(world, seed)
        (at,) = truth.breaks
        untouched(world, cut_world, ~truth.affected)
        assert truth.affected[at:].all()
        assert not truth.affected[:at].any()
        rotation = steps(cut_world)[1]
        assert rotation.argmax() == at - 1
        assert rotation[at - 1] > 15
        np.testing.assert_allclose(np.delete(rotation, at - 1), np.delete(steps(world)[1], at - 1), atol=1e-4)
        assert surface_distance(cut_world.scene, cut_world.cameras.positions).min() > 0.3
        done += 1
    assert done == 12


def test_zoom_changes_the_focal_length_and_not_the_pose(world):
    zoomed, truth = zoom(world, start=3, stop=10, factor=1.5)
    np.testing.assert_array_equal(zoomed.cameras.world_from_camera, world.cameras.world_from_camera)
    ratio = zoomed.cameras.intrinsics / world.cameras.intrinsics
    np.testing.assert_allclose(ratio[:, 2:], 1.0)
    np.testing.assert_allclose(ratio[:4, :2], 1.0)
    np.testing.assert_allclose(ratio[9:, :2], 1.5)
    assert (np.diff(ratio[:, 0]) >= 0).all()
    np.testing.assert_array_equal(truth.affected, ratio[:, 0] > 1)


def test_frozen_frames_are_the_same_picture(world):
    frozen, truth = freeze(world, start=4, count=3)
    assert np.flatnonzero(truth.affected).tolist() == [5, 6, 7]
    assert truth.breaks == (8,)
    frames, original = render(frozen, 48, 80), render(world, 48, 80)
    for t in range(13):
        np.testing.assert_array_equal(frames.rgb[t], original.rgb[4 if t in (5, 6, 7) else t])
    np.testing.assert_allclose(frames.flow[4:7], 0.0, atol=1e-3)
    assert not frames.moving[4:7].any()
    assert np.abs(frames.flow[7]).max() > 1e-2
    np.testing.assert_array_equal(frozen.cameras.times, world.cameras.times)


def test_static_variant_with_a_resting_camera_never_changes(world):
    still = static_variant(world, camera=True)
    frames = render(still, 48, 80)
    assert (frames.rgb == frames.rgb[:1]).all()
    assert not frames.moving.any()
    np.testing.assert_allclose(frames.flow, 0.0, atol=1e-3)
    assert still.path_class == "static"
    assert still.moves == ()


def test_corruptions_are_deterministic_and_leave_the_world_alone(world):
    before = world.cameras.world_from_camera.copy()
    for corrupt in (shake, jump, cut):
        first, second = corrupt(world, seed=9), corrupt(world, seed=9)
        np.testing.assert_array_equal(first[0].cameras.world_from_camera, second[0].cameras.world_from_camera)
        assert first[1].kind == corrupt.__name__
        assert first[1].magnitude == second[1].magnitude
    np.testing.assert_array_equal(world.cameras.world_from_camera, before)


def test_impossible_corruptions_are_refused(world):
    with pytest.raises(ValueError, match="expected 0 <= start < stop <= 13"):
        shake(world, seed=0, start=9, stop=20)
    with pytest.raises(ValueError, match="cannot freeze"):
        freeze(world, start=10, count=3)
    with pytest.raises(ValueError, match="expected 1 to 12"):
        cut(world, seed=0, at=13)
    with pytest.raises(ValueError, match="zoom factor is 0"):
        zoom(world, factor=0.0)
    with pytest.raises(ValueError, match="expected 0 to 3 m"):
        jump(world, seed=0, metres=-200.0)


@pytest.fixture(scope="module")
def places():
    return [
        sample_world(seed, WorldsConfig(frames=25, fps=6.0, places=Places(layout, "out_and_back")))
        for layout in ("garden", "rooms", "town")
        for seed in range(2)
    ]


CORRUPTIONS = (
    lambda world: shake(world, 1, start=3),
    lambda world: jump(world, 1),
    lambda world: cut(world, 1),
    lambda world: zoom(world, start=5, factor=2.0),
    lambda world: freeze(world, 6, 4),
)


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=["shake", "jump", "cut", "zoom", "freeze"])
def test_a_corrupted_place_is_told_as_it_is_seen(places, corrupt):
    for world in places:
        other, truth = corrupt(world)
        assert truth.affected.any()
        assert other.captions == caption_phrasings(other)
        cameras, seen = other.cameras, set()
        for t in range(other.frames):
            pose, lens = cameras.world_from_camera[t], cameras.intrinsics[t]
            seen |= set(glance(other.scene, t, pose, lens, 24, 40)[0].flat)
        assert all(item.slot in seen for item in other.objects if item.visible)
        for earlier, later in other.returns:
            np.testing.assert_array_equal(
                cameras.world_from_camera[earlier], cameras.world_from_camera[later]
            )
            np.testing.assert_array_equal(cameras.intrinsics[earlier], cameras.intrinsics[later])
        assert truth.kind in ("freeze", "shake") or len(other.returns) < max(len(world.returns), 1)


def test_cameras_of_cut_and_jumped_places_see_what_the_first_ones_did(places):
    """The middle of the picture is not behind a wall: the second camera shares things with the first."""
    shared = []
    for world in places:
        for other, truth in (jump(world, 3), cut(world, 3)):
            (at,) = truth.breaks
            assert surface_distance(other.scene, other.cameras.positions).min() > 0.3
            both = [
                set(glance(w.scene, t, w.cameras.world_from_camera[t], w.cameras.intrinsics[t])[0].flat)
                for w, t in ((world, at - 1), (other, at))
            ]
            shared.append(len((both[0] & both[1]) - {-1, 0}) > 0)
    assert np.mean(shared) > 0.75
