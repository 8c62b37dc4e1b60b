"""Frames retrieved for the cameras to come: paths where the answer is known, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_paths import properties, rigid

from camctrl_jax.camera import DEFAULT_INTRINSICS, CameraError, Cameras, rotations
from camctrl_jax.camera.retrieval import _shown, coverage, select_frames


def yawing(degrees, positions=None) -> Cameras:
    """Cameras that look along the ground at the given angles, 0 along z and 90 along x."""
    degrees = np.asarray(degrees, float)
    poses = np.tile(np.eye(4), (len(degrees), 1, 1))
    turn = np.radians(degrees)
    poses[:, 0, 0], poses[:, 0, 2] = np.cos(turn), np.sin(turn)
    poses[:, 2, 0], poses[:, 2, 2] = -np.sin(turn), np.cos(turn)
    if positions is not None:
        poses[:, :3, 3] = positions
    return Cameras(poses, DEFAULT_INTRINSICS, metric=True)


def test_turned_away_and_back_the_first_view_is_retrieved():
    out = yawing(np.linspace(0, 90, 49))
    back = yawing(np.linspace(90, 0, 49)[1:])
    chosen = select_frames(out[:-13], back, 4, given=out[-13:])
    angles = np.linspace(0, 90, 49)[chosen]
    assert coverage(out[[*chosen, *range(36, 49)]], back) > 0.98 * coverage(out, back)
    assert angles.min() < 15, "the view that it turns back to"
    assert angles[0] < 60, "the recent frames show the rest already"


def test_a_detour_is_bridged_by_the_stop_in_the_middle():
    # A looks along z, B to the right, C behind; then back to B. The first frame (A) does not show B.
    stops = [np.full(20, 0.0), np.full(20, 120.0), np.full(20, 240.0)]
    history = yawing(np.concatenate(stops))
    chosen = select_frames(history, yawing(np.full(16, 120.0)), 1, given=history[-5:])
    assert 20 <= chosen[0] < 40
    assert chosen[0] == 20, "the earliest of equals"


def test_a_loop_is_closed_with_the_frames_it_started_with():
    angle = np.linspace(0, 360, 120, endpoint=False)
    centres = 4 * np.stack([-np.sin(np.radians(angle)), 0 * angle, -np.cos(np.radians(angle))], axis=1)
    loop = yawing(angle, centres)  # round the origin, looking at it
    chosen = select_frames(loop[:85], loop[100:], 3, given=loop[85:100])
    assert chosen[0] < 10, "from where the loop ends"


def test_what_is_shown_again_is_shown_from_elsewhere():
    # Ten frames on the spot, which show all that is to come, then the same from a step aside.
    history = yawing(np.zeros(20), [[0.0, 0.0, 0.0]] * 10 + [[1.0, 0.0, 0.0]] * 10)
    assert select_frames(history, yawing([0.0]), 2).tolist() == [0, 10]


def test_what_the_given_frames_show_is_not_retrieved_again():
    history = yawing([0.0] * 10 + [40.0] * 10)
    target = yawing(np.linspace(0, 40, 8))
    assert select_frames(history, target, 1, given=yawing([40.0] * 3))[0] == 0
    assert select_frames(history, target, 1, given=yawing([0.0] * 3))[0] == 10


def test_a_near_frame_is_preferred_to_one_from_far_and_to_one_from_behind():
    target = yawing([0.0])
    far = yawing([0.0], [[0.0, 0.0, -10.0]])
    behind = yawing([180.0], [[0.0, 0.0, 22.0]])
    near = yawing([0.0], [[0.0, 0.0, -0.5]])
    history = Cameras(
        np.concatenate([far.world_from_camera, behind.world_from_camera, near.world_from_camera]),
        DEFAULT_INTRINSICS,
    )
    assert select_frames(history, target, 1)[0] == 2
    assert coverage(near, target) > 0.8 > 0.5 > coverage(far, target) > coverage(behind, target)


def test_the_share_shown_has_the_values_that_its_formula_gives_by_hand():
    point, centre = np.array([[0.0, 0.0, 4.0]]), np.zeros((1, 3))
    focal = np.sqrt(DEFAULT_INTRINSICS[0] * DEFAULT_INTRINSICS[1])
    scale = np.array([focal / 4.0])  # of the coming camera, 4 m away
    cameras = yawing([0, 0, -90, 180, 0], [[0, 0, 0], [0, 0, -4], [4, 0, 4], [0, 0, 8], [0, 0, 4.05]])
    np.testing.assert_allclose(_shown(cameras, point, centre, scale)[:, 0], [1, 0.5, 0.5, 0, 0], atol=1e-12)


def test_nothing_to_gain_fills_up_from_the_first_frame_on_spread_in_time():
    history = yawing(np.full(9, 180.0))  # it looks away from all that is to come
    np.testing.assert_array_equal(select_frames(history, yawing([0.0]), 4), [0, 8, 4, 2])


def test_a_short_history_repeats_and_nothing_else_does():
    history, target = yawing([0.0, 20.0, 40.0]), yawing(np.linspace(0, 40, 5))
    order = select_frames(history, target, 3)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_array_equal(select_frames(history, target, 7), np.resize(order, 7))
    assert select_frames(history, target, 0).shape == (0,)


@properties
@given(st.integers(0, 2**31), st.integers(1, 24), st.integers(1, 6))
def test_properties(seed, frames, count):
    random = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames + 6, 1, 1))
    poses[:, :3, :3] = rotations.nearest(np.eye(3) + 0.6 * random.normal(size=(frames + 6, 3, 3)))
    poses[:, :3, 3] = random.normal(size=(frames + 6, 3))
    cameras = Cameras(poses, DEFAULT_INTRINSICS)
    history, target, recent = cameras[:frames], cameras[frames : frames + 3], cameras[frames + 3 :]
    chosen = select_frames(history, target, count, given=recent, seed=seed)
    assert chosen.dtype == np.int64
    assert chosen.shape == (count,)
    assert ((chosen >= 0) & (chosen < frames)).all()
    assert len(np.unique(chosen)) == min(count, frames)
    again = select_frames(history, target, count, given=recent, seed=seed)
    np.testing.assert_array_equal(chosen, again)
    longer = select_frames(history, target, count + 2, given=recent, seed=seed)
    np.testing.assert_array_equal(chosen, longer[:count], "the best come first")

    # The world's frame does not matter.
    move = rigid(seed % 1000)
    moved = select_frames(
        history.transformed(move), target.transformed(move), count, given=recent.transformed(move), seed=seed
    )
    np.testing.assert_array_equal(chosen, moved)

    # Without given frames the first choice is the best of all single frames.
    kept = [coverage(history[[i]], target, seed=seed) for i in range(frames)]
    alone = select_frames(history, target, 1, seed=seed)[0]
    if max(kept) >= 0.005:
        assert kept[alone] == pytest.approx(max(kept), rel=1e-5)


def test_it_refuses_what_has_no_answer():
    some = yawing([0.0])
    with pytest.raises(CameraError, match="history of 0 frames"):
        select_frames(some[:0], some, 2)
    with pytest.raises(CameraError, match="cannot retrieve -1"):
        select_frames(some, some, -1)
