"""Dense depth against exact geometry: a textured plane, its scale, what is masked, what cannot be told."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from textured_plane import NORMAL, OFFSET, plane_video, truck

from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.reconstruction.dense_depth import (
    NoParallax,
    SweepSettings,
    _cropped,
    believed,
    dense_depth,
    key_frames,
)
from camctrl_jax.reconstruction.fusion import fused_cloud, unprojected
from camctrl_jax.reconstruction.plane_sweep import _summed, agreement, projections
from camctrl_jax.reconstruction.scenes import scene_of_clip

SIZE = (40, 64)
FEW = SweepSettings(planes=32, agree=3, sources=4)
NEAR_FAR = replace(FEW, near=2.0, far=5.0)  # as found, but at once


@pytest.fixture(scope="module")
def clip():
    cameras = truck()
    return (cameras, *plane_video(cameras, SIZE))


@pytest.fixture(scope="module")
def scene(clip):
    cameras, frames, _ = clip
    return scene_of_clip(frames, cameras, settings=FEW)


def to_others(cameras):
    """Matrices from the first camera to the others."""
    poses, lenses = cameras.world_from_camera, cameras.intrinsics
    return projections(poses[0], lenses[0], poses[1:], lenses[1:], SIZE)


def test_projections_are_those_of_opencv():
    cameras, (height, width) = truck(3), SIZE
    matrix = to_others(cameras[[0, 2]])[0]
    pixel, depth = np.array([11.25, 30.5]), 2.4
    found = matrix @ [*pixel, 1.0, 1.0 / depth]
    fx, fy, cx, cy = cameras.intrinsics[0] * (width, height, width, height)
    point = np.array([(pixel[0] - cx) / fx, (pixel[1] - cy) / fy, 1.0]) * depth
    inverse = cameras.camera_from_world[2]  # frame 0 is the world
    lens = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    turn = cv2.Rodrigues(inverse[:3, :3])[0]
    expected, _ = cv2.projectPoints(point[None], turn, inverse[:3, 3], lens, None)
    np.testing.assert_allclose(found[:2] / found[2], expected.reshape(2), rtol=1e-5)
    np.testing.assert_allclose(found[2] * depth, (inverse[:3, :3] @ point + inverse[:3, 3])[2], rtol=1e-5)


def test_points_of_a_textured_plane_lie_on_it(scene):
    points = scene.cloud.points
    off = np.abs(points @ NORMAL - OFFSET) / np.abs(OFFSET)
    assert np.median(off) < 0.005
    assert np.quantile(off, 0.99) < 0.03
    assert scene.facts["coverage"] > 0.6
    assert scene.cloud.metric
    # One surface is stored once, with up to four points for a pixel of one view.
    assert 0.5 * SIZE[0] * SIZE[1] < len(points) < 5 * SIZE[0] * SIZE[1]


def test_depth_is_that_of_its_own_pixel(clip, scene):
    known = np.isfinite(scene.depth)
    error = np.abs(scene.depth / clip[2] - 1)[known]
    assert np.median(error) < 0.005
    slope = (scene.depth - clip[2])[known]
    assert abs(np.mean(slope)) < 0.01  # no bias of half a pixel


def test_poses_scaled_scale_the_cloud(clip, scene):
    cameras, frames, _ = clip
    larger = scene_of_clip(frames, cameras.scaled(7.3), settings=FEW)
    assert abs(len(larger.cloud.points) / len(scene.cloud.points) - 1) < 0.02
    for quantile in (0.1, 0.5, 0.9):
        of = [np.quantile(one.cloud.points, quantile, axis=0) for one in (scene, larger)]
        np.testing.assert_allclose(of[1], 7.3 * of[0], rtol=0.01, atol=0.02)
    np.testing.assert_allclose(larger.facts["near"], 7.3 * scene.facts["near"], rtol=0.02)


def test_masked_pixels_have_no_points_and_tell_nothing(clip):
    cameras, frames, _ = clip
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 10:30, 20:44] = True
    spoiled = frames.copy()
    spoiled[masks] = np.random.default_rng(0).integers(0, 256, (masks.sum(), 3))
    found = dense_depth(spoiled, cameras, masks, NEAR_FAR)
    assert not np.isfinite(found.depth[masks]).any()
    known = np.isfinite(found.depth)
    assert known.mean() > 0.25
    assert np.median(np.abs(found.depth / clip[2] - 1)[known]) < 0.01


def test_exact_depth_agrees_everywhere_it_is_seen_and_wrong_depth_nowhere(clip):
    cameras, _, depth = clip
    matrices = to_others(cameras)
    inverse = (1 / depth).astype(np.float32)
    count, mean = agreement(inverse[0], inverse[1:], matrices, 0.02)
    assert (np.asarray(count)[8:-8, 20:-8] == 6).all()
    np.testing.assert_allclose(np.asarray(mean), inverse[0], rtol=0.02)
    count, _ = agreement(1.1 * inverse[0], inverse[1:], matrices, 0.02)
    assert (np.asarray(count) == 0).mean() > 0.99


def test_what_agrees_is_averaged_as_inverse_depth():
    """A wall 2 away: others that say 1.8 % more and less count, one that says 5 % more does not."""
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = 0.01 * np.arange(5)
    matrices = to_others(Cameras(poses, (0.75, 1.0, 0.5, 0.5)))
    said = np.array([1.018, 1.018, 0.982, 1.05], np.float32)
    others = np.ones((4, *SIZE), np.float32) * 0.5 * said[:, None, None]
    count, mean = agreement(np.full(SIZE, 0.5, np.float32), others, matrices, 0.02)
    inner = np.s_[:, 4:-4]
    assert (np.asarray(count)[inner] == 3).all()
    np.testing.assert_allclose(np.asarray(mean)[inner], 0.5 * (1 + 1.018 + 1.018 + 0.982) / 4, rtol=1e-5)
    depth, _ = believed(np.concatenate([np.full((1, *SIZE), 0.5, np.float32), others]),
                        Cameras(poses, (0.75, 1.0, 0.5, 0.5)), SweepSettings(agree=3))  # fmt: skip
    np.testing.assert_allclose(depth[0][inner], 1 / np.asarray(mean)[inner], rtol=1e-6)


def test_views_from_one_pose_are_one_witness(clip):
    """The same picture again says the same, right or wrong: it confirms nothing."""
    cameras, _, depth = clip
    inverse = (1 / depth).astype(np.float32)
    doubled = [0, 0, 0, 0, 0, 3, 6]
    wrong = inverse[doubled].copy()
    wrong[:5] *= 1.1
    found, count = believed(wrong, cameras[doubled], SweepSettings(agree=2))
    assert not np.isfinite(found[:5]).any()
    assert count.max() <= 1
    found, count = believed(inverse[doubled], cameras[doubled], SweepSettings(agree=2))
    assert (count[0, 8:-8, 20:-8] == 2).all()
    np.testing.assert_allclose(found[0, 8:-8, 20:-8], depth[0, 8:-8, 20:-8], rtol=0.02)


def test_windows_at_the_edge_are_of_what_there_is():
    """A wall of one grey has no texture, nor has its edge; half a window still has its own mean."""
    flat = np.full((12, 16), 0.9, np.float32)
    np.testing.assert_allclose(_summed(flat, 2), flat, rtol=1e-6)
    ramp = np.tile(np.arange(16.0, dtype=np.float32), (12, 1))
    np.testing.assert_allclose(np.asarray(_summed(ramp, 2))[0, :3], [1.0, 1.5, 2.0], rtol=1e-6)


def test_the_lens_of_smaller_pictures_is_that_of_what_is_left():
    """A point is at the same pixel, reduced, though two rows and a column were dropped."""
    path = truck(2)
    smaller = _cropped(path, (40, 64), (38, 63))
    before = path.intrinsics * (64, 40, 64, 40)  # pixels
    np.testing.assert_allclose(smaller.intrinsics * (63, 38, 63, 38), before)


def test_a_path_with_nan_is_refused_by_frame(clip):
    cameras, frames, _ = clip
    poses = cameras.world_from_camera.copy()
    poses[3, 0, 3] = np.nan
    with pytest.raises(CameraError, match=r"frame 3.*NaN"):
        dense_depth(frames, Cameras(poses, cameras.intrinsics), settings=FEW)


def test_a_scene_far_from_the_origin_is_the_same_scene(clip, scene):
    """Coordinates of a map: thousands of kilometres, and the clip moves by decimetres."""
    cameras, frames, _ = clip
    shift = np.array([4.5e5, -5.4e6, 120.0])
    poses = cameras.world_from_camera.copy()
    poses[:, :3, 3] += shift
    far = dense_depth(frames, Cameras(poses, cameras.intrinsics), settings=FEW).depth
    both = np.isfinite(far) & np.isfinite(scene.depth)
    assert both.sum() > 0.98 * np.isfinite(scene.depth).sum()
    np.testing.assert_allclose(far[both], scene.depth[both], rtol=1e-3)
    cloud = fused_cloud(far, frames, Cameras(poses, cameras.intrinsics))
    assert np.median(np.abs((cloud.points - shift) @ NORMAL - OFFSET)) < 0.02


def test_a_standing_and_a_turning_camera_are_refused_with_the_degrees_found(clip):
    cameras, frames, _ = clip
    still = Cameras(np.tile(np.eye(4), (len(frames), 1, 1)), cameras.intrinsics)
    with pytest.raises(NoParallax, match=r"too little parallax: 0\.0 degrees .* only turns"):
        dense_depth(frames, still, settings=FEW)
    # A path of 2 cm before a plane 3 m away: 0.4 degrees.
    little = truck(length=0.02)
    with pytest.raises(NoParallax, match=r"too little parallax: 0\.\d degrees"):
        dense_depth(plane_video(little, SIZE)[0], little, settings=FEW)


def test_views_that_are_too_far_apart_are_not_called_still():
    far_apart = truck(3, length=4.0)
    frames, _ = plane_video(far_apart, SIZE)
    with pytest.raises(InvalidValue, match=r"too far apart") as raised:
        dense_depth(frames, far_apart, settings=SweepSettings(planes=32, near=2.0, far=5.0))
    assert not isinstance(raised.value, NoParallax)


def test_cameras_of_another_clip_give_no_scene(clip):
    cameras, frames, _ = clip
    noise = np.random.default_rng(1).integers(0, 256, frames.shape, np.uint8)
    with pytest.raises((NoParallax, ClipError), match=r"parallax|empty"):
        scene_of_clip(noise, cameras, settings=SweepSettings(planes=32, agree=4, sources=4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"planes": 2}, "planes is 2"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"near": 3.0, "far": 1.0}, "0 < near < far"),
        ({"near": float("nan")}, "near"),
        ({"views": 1}, "views is 1"),
        ({"least_angle": 30.0}, "least_angle"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, words):
    with pytest.raises(InvalidValue, match=words):
        SweepSettings(**change)


def test_frames_and_poses_must_be_as_many(clip):
    cameras, frames, _ = clip
    with pytest.raises(InvalidValue, match="6 poses for 7 frames"):
        dense_depth(frames, cameras[:6], settings=FEW)


def test_key_frames_follow_the_motion_not_the_clock():
    poses = np.tile(np.eye(4), (300, 1, 1))
    poses[200:, 0, 3] = np.linspace(0, 5, 100)  # at rest for two thirds of the clip
    chosen = key_frames(Cameras(poses, (0.6, 1.0, 0.5, 0.5)), 20)
    assert chosen[0] == 0
    assert chosen[-1] == 299
    assert (chosen > 199).sum() >= 18
    assert len(key_frames(Cameras(poses[:5], (0.6, 1.0, 0.5, 0.5)), 20)) == 5


def test_fusion_keeps_places_and_colours(clip):
    cameras, frames, depth = clip
    one = fused_cloud(depth[:1].astype(np.float32), frames[:1], cameras[:1], spacing=1e-3)
    assert len(one.points) == SIZE[0] * SIZE[1]  # nothing meets in voxels that small
    own = unprojected(depth[0], cameras.world_from_camera[0], cameras.intrinsics[0])
    np.testing.assert_allclose(np.sort(one.points, axis=0), np.sort(own, axis=0), atol=1e-5)
    # Exact depth gives points exactly on the plane: half a pixel, or a lens of another side, is 5 mm off.
    np.testing.assert_allclose(own @ NORMAL, OFFSET, atol=1e-9)
    nearest = np.argmin(np.linalg.norm(one.points[:, None] - own[::97], axis=-1), axis=0)
    np.testing.assert_array_equal(one.colours[nearest], frames[0].reshape(-1, 3)[::97])
    every = fused_cloud(depth.astype(np.float32), frames, cameras, spacing=1.0)
    assert every.confidence.sum() == depth.size
    assert len(every.points) < 0.5 * depth.size
    np.testing.assert_allclose(every.points @ NORMAL, OFFSET, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1_000_004, 1_000_012])
def test_a_world_at_rest_has_its_true_depth(seed):
    from camctrl_jax.worlds import WorldsConfig, render, sample_world

    world = sample_world(seed, WorldsConfig(aspect=160 / 96, static=True))
    truth = render(world, 96, 160)
    found = dense_depth(truth.rgb, world.cameras)
    cloud = fused_cloud(found.depth, truth.rgb[found.frames], world.cameras[found.frames])
    true = truth.depth[found.frames]
    known = np.isfinite(found.depth)
    error = np.where(np.isfinite(true), np.abs(found.depth / true - 1), np.inf)[known]
    assert np.median(error) < 0.025
    assert len(cloud.points) > 15_000
