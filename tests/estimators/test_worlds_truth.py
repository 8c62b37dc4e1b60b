"""The truth of worlds behind the protocols, and what all estimators have in common."""

import importlib.metadata
import subprocess
import sys
from dataclasses import replace

import colmap_files
import numpy as np
import pytest

from camctrl_jax import estimators
from camctrl_jax.camera import Cameras, rotations
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators import SfmResult, SfmStatus
from camctrl_jax.estimators.checks import Limits, doubts, flatness, triangulation_angles
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.colmap_models import read_models
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.estimators.opencv_flow import DisFlow
from camctrl_jax.estimators.worlds_truth import WorldsTruth
from camctrl_jax.extras import MissingExtra

SIZE = (48, 80)


def test_truth_is_the_renderers(truth_of):
    truth = truth_of(7, SIZE)
    frames, world = truth.rgb, truth.world
    np.testing.assert_array_equal(truth.segment(frames, 4.0).moving, truth.rendered.moving)
    np.testing.assert_array_equal(truth.flow(frames[:-1], frames[1:]), truth.rendered.flow)
    depth = truth.depth(frames)
    np.testing.assert_array_equal(depth.valid, np.isfinite(truth.rendered.depth))
    np.testing.assert_array_equal(depth.depth, truth.rendered.depth)
    result = truth.reconstruct(frames)
    assert result.succeeded
    assert result.metric
    np.testing.assert_allclose(result.cameras().world_from_camera, world.cameras.world_from_camera, atol=1e-9)
    assert result.cameras(world.cameras.times).times.tolist() == world.cameras.times.tolist()


def test_points_lie_where_two_frames_see_them(truth_of):
    """Points made from each frame's depth project into the first frame at its depth, where they are seen."""
    truth = truth_of(7, SIZE)
    cloud = truth.points(truth.rgb)
    assert cloud.metric
    assert len(cloud.points) == len(cloud.colours) > 1000
    camera = truth.cameras.camera_from_world[0]
    seen = cloud.points @ camera[:3, :3].T + camera[:3, 3]
    lens = truth.cameras.intrinsics[0]
    x = (seen[:, 0] / seen[:, 2] * lens[0] + lens[2]) * SIZE[1]
    y = (seen[:, 1] / seen[:, 2] * lens[1] + lens[3]) * SIZE[0]
    inside = (seen[:, 2] > 0.1) & (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    depth = truth.rendered.depth[0][y[inside].astype(int), x[inside].astype(int)]
    ratio = seen[inside, 2] / depth
    assert np.median(np.abs(ratio - 1.0)) < 0.02


def test_a_clip_of_some_frames_moves_if_anything_moved_until_the_next(truth_of):
    whole = truth_of(7, SIZE)
    part = WorldsTruth(whole.world, SIZE, (0, 5, 10))
    frames = part.rgb
    np.testing.assert_array_equal(frames, whole.rgb[[0, 5, 10]])
    moving = part.segment(frames, 1.0).moving
    for place, (start, end) in enumerate(((0, 5), (5, 10), (10, 11))):
        slots = whole.world.scene.moving[start:end].any(axis=0)
        expected = np.isin(whole.rendered.instances[start], np.flatnonzero(slots) + 1)
        np.testing.assert_array_equal(moving[place], expected)
    assert len(part.reconstruct(frames).cameras()) == 3
    with pytest.raises(InvalidValue, match="leave none out"):
        part.flow(frames[:-1], frames[1:])


def test_truth_of_other_pictures_of_the_same_frames_and_of_no_others(truth_of):
    truth = truth_of(7, SIZE)
    noise = np.zeros((16, *SIZE, 3), np.uint8)
    np.testing.assert_array_equal(truth.segment(noise, 4.0).moving, truth.rendered.moving)
    with pytest.raises(InvalidValue, match=r"\[15, 48, 80, 3\]"):
        truth.segment(noise[1:], 4.0)
    with pytest.raises(InvalidValue, match="world 7"):
        truth.depth(noise[:, :40])


def test_everything_speaks_its_protocol(truth_of, tmp_path):
    truth = truth_of(7, SIZE)
    speakers = {
        estimators.OpticalFlow: (DisFlow(), truth),
        estimators.MotionSegmenter: (EpipolarMasks(), truth),
        estimators.StructureFromMotion: (Colmap(), truth),
        estimators.MetricDepth: (truth,),
        estimators.PointReconstructor: (truth,),
        estimators.ClipEmbedder: (HistogramEmbedder(),),
    }
    digests = set()
    for protocol, objects in speakers.items():
        for speaker in objects:
            assert isinstance(speaker, protocol)
            digests.add(speaker.fingerprint().digest)
    assert len(digests) == 5


def test_fingerprints_are_stable_and_follow_the_settings():
    assert Colmap().fingerprint().digest == Colmap(keep_failed=True, time_limit=7.0).fingerprint().digest
    assert Colmap().fingerprint().digest != Colmap(random_seed=1).fingerprint().digest
    assert EpipolarMasks().fingerprint() == EpipolarMasks().fingerprint()
    assert EpipolarMasks(DisFlow("fast")).fingerprint().digest != EpipolarMasks().fingerprint().digest


def test_there_is_no_default_for_metric_depth():
    assert not isinstance(Colmap(), estimators.MetricDepth)
    assert not isinstance(DisFlow(), estimators.MetricDepth)
    assert not Colmap().reconstruct(np.zeros((2, 40, 64, 3), np.uint8)).metric


def test_importing_the_room_imports_neither_opencv_nor_pycolmap_nor_torch():
    heavy = ("cv2", "pycolmap", "torch", "flax", "jax")
    code = "import sys; import camctrl_jax.estimators, camctrl_jax.estimators.recipes; "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtra, match=r"camctrl_jax\[eval\]"):
        Colmap().reconstruct(np.zeros((3, 40, 64, 3), np.uint8))


# --------------------------------------------------------------------------------------------------------
# checks


def straight(frames=10, **changes):
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames) * 0.1
    for index, place in changes.items():
        poses[int(index[1:]), 2, 3] = place
    return SfmResult.of_cameras(Cameras(poses, np.array([0.6, 1.0, 0.5, 0.5])))


def without(result, frames):
    kept = np.setdiff1d(np.arange(len(result)), frames)
    return SfmResult.of_cameras(result.cameras()[kept], kept, len(result))


def test_a_good_path_leaves_no_doubt():
    assert doubts(straight(), (96, 160)) == ()


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([4], ()),
        ([4, 6], ("unregistered",)),
        ([3, 4, 5], ("unregistered", "gap")),
        ([0], ("end_missing",)),
        ([9], ("end_missing",)),
    ],
)
def test_missing_frames_are_doubts(frames, expected):
    assert doubts(without(straight(), frames), (96, 160)) == expected


def test_jumps_fields_of_view_and_failures_are_doubts():
    assert doubts(straight(_9=3.0), (96, 160)) == ("jump",)
    cameras = straight().cameras()
    for focal in (5.0, 0.1):
        wide = SfmResult.of_cameras(cameras.with_intrinsics([focal, focal, 0.5, 0.5]))
        assert doubts(wide, (96, 160)) == ("field_of_view",)
    failed = SfmResult.failed(10, "timeout", "stopped")
    assert (failed.status, doubts(failed, (96, 160))) == (SfmStatus.FAILED, ("no_model",))
    assert failed.registered_share == 0.0
    assert not failed.succeeded


def test_weak_points_are_doubts(tmp_path):
    colmap_files.small_model(tmp_path, frames=5)
    result = read_models(tmp_path, [f"{i:05d}.png" for i in range(5)], (40, 64))
    assert set(doubts(result, (40, 64))) == {"few_points", "few_observations"}
    strict = Limits(points=1, observations=1, reprojection=0.99 / np.hypot(40, 64))  # the error is 1 pixel
    assert doubts(result, (40, 64), strict) == ("reprojection",)
    assert doubts(result, (40, 64), replace(strict, reprojection=1.01 / np.hypot(40, 64))) == ()
    # From the first to the last place, 4 apart, seen from 40 away.
    np.testing.assert_allclose(triangulation_angles(result)[0], np.degrees(np.arctan(4 / 40)), rtol=1e-6)


def over_ground(direction, *, standing=0.0):
    """Ten cameras that look along z over the ground y = 1; a share of the points stands on it, to y = -1."""
    random = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (10, 1, 1))
    poses[:, :3, 3] = np.linspace(0.0, 1.0, 10)[:, None] * direction
    points = random.uniform((-3.0, 1.0, 4.0), (3.0, 1.0, 9.0), (400, 3))
    points[:, 1] -= random.uniform(0.0, 2.0, 400) * (random.uniform(size=400) < standing)
    lens = np.array([0.8, 1.3, 0.5, 0.5])
    cameras = Cameras(poses, lens)
    frames, seen = (grid.ravel() for grid in np.mgrid[:10, :400])
    local = points[seen] - poses[frames, :3, 3]
    xy = (local[:, :2] / local[:, 2:] * lens[:2] + lens[2:]) * (160, 96)
    found = SfmResult.of_cameras(cameras)
    return replace(
        found, points=points, observation_frame=frames, observation_point=seen, observation_xy=xy,
        mean_reprojection_error=0.1,
    )  # fmt: skip


def test_flat_ground_that_the_camera_goes_towards_is_a_doubt():
    forward, right = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    limits = Limits(triangulation_deg=0.1)
    assert flatness(over_ground(forward)) == pytest.approx(0.0, abs=1e-9)
    assert doubts(over_ground(forward), (96, 160), limits) == ("flat",)
    assert doubts(over_ground(-forward), (96, 160), limits) == ("flat",)
    assert doubts(over_ground(right), (96, 160), limits) == ()
    # A few things that stand on it tilt no plane, many make it none.
    assert doubts(over_ground(forward, standing=0.05), (96, 160), limits) == ("flat",)
    assert doubts(over_ground(forward, standing=0.5), (96, 160), limits) == ()
    # It has no unit, and no world of its own.
    model = over_ground(forward, standing=0.3)
    turn = rotations.about(np.array([1.0, 2.0, 3.0]) / 14**0.5, np.array([0.7]))[0]
    poses = model.camera_from_world.copy()
    poses[:, :, :3] = poses[:, :, :3] @ turn.T
    poses[:, :, 3] *= 50.0
    other = replace(model, camera_from_world=poses, points=50.0 * model.points @ turn.T)
    assert flatness(other) == pytest.approx(flatness(model), rel=1e-6)
    assert flatness(replace(model, points=model.points[:3])) == np.inf


def test_pictures_of_flat_ground_have_the_explanation_that_the_check_is_for():
    """Forward over ground: OpenCV finds as well a rise before a wall, to first order."""
    cv2 = pytest.importorskip("cv2")
    step, ground = np.array([0.0, 0.0, -0.05]), np.array([0.0, 1.0, 0.0])  # of points, in the camera's axes
    homography = np.eye(3) + np.outer(step, ground)
    _, turns, ways, normals = cv2.decomposeHomographyMat(homography, np.eye(3))
    found = [
        (way.ravel() / np.linalg.norm(way), normal.ravel(), turn)
        for turn, way, normal in zip(turns, ways, normals, strict=True)
    ]
    assert any(abs(way[2]) > 0.999 and abs(normal[1]) > 0.999 for way, normal, _ in found)
    other = [turn for way, normal, turn in found if abs(way[1]) > 0.99 and abs(normal[2]) > 0.99]
    assert other
    assert rotations.angle_degrees(other[0][None])[0] == pytest.approx(np.degrees(0.05), rel=0.05)


def test_the_largest_of_several_models_is_taken_and_the_others_are_counted(tmp_path):
    colmap_files.small_model(tmp_path / "0", frames=6, left_out=(0, 1, 2, 3))
    colmap_files.small_model(tmp_path / "1", frames=6, left_out=(4, 5))
    result = read_models(tmp_path, [f"{i:05d}.png" for i in range(6)], (40, 64))
    assert result.model_sizes == (4, 2)
    assert result.registered_frames.tolist() == [0, 1, 2, 3]
    assert "fragments" in doubts(result, (40, 64))
