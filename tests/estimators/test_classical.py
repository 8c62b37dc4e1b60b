"""What runs without weights, against exact truth: flow, motion masks, structure from motion, histograms."""

from dataclasses import replace

import numpy as np
import pytest

from camctrl_jax.camera import Cameras, rotations
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators import SfmStatus, dilate
from camctrl_jax.estimators.checks import doubts, triangulation_angles
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.estimators.opencv_flow import DisFlow
from camctrl_jax.metrics.appearance import appearance_consistency
from camctrl_jax.metrics.trajectories import path_errors
from camctrl_jax.worlds import render, static_variant

SMALL, MIDDLE = (96, 160), (128, 192)
LENS = np.array([0.8, 0.8 * 200 / 120, 0.5, 0.5])  # of the 120 x 200 pictures made here
HELD_OUT = 1_000_000


def texture(height, width, seed=0):
    """A smooth random texture u8 [H, W, 3] with structure at several scales."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells in (8, 16, 32, 64):
        grid = random.normal(size=(cells + 1, cells + 1, 3))
        y, x = np.linspace(0, cells, height), np.linspace(0, cells, width)
        j, i = np.minimum(y.astype(int), cells - 1), np.minimum(x.astype(int), cells - 1)
        v, u = (y - j)[:, None, None], (x - i)[None, :, None]
        v, u = v * v * (3 - 2 * v), u * u * (3 - 2 * u)
        corner = [[grid[j + a][:, i + b] for b in (0, 1)] for a in (0, 1)]
        picture += (1 - v) * ((1 - u) * corner[0][0] + u * corner[0][1])
        picture += v * ((1 - u) * corner[1][0] + u * corner[1][1])
    return np.clip(127 + 40 * picture, 0, 255).astype(np.uint8)


def enlarged(picture, times):
    """A picture u8 [H, W, 3], ``times`` as large, between pixels linearly."""
    from PIL import Image

    size = (picture.shape[1] * times, picture.shape[0] * times)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


# ------------------------------------------------------------------------------------------------------- flow


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -2), (-4, 5)])
def test_flow_of_a_shifted_picture_is_the_shift(shift):
    whole = texture(140, 220)
    right, down = shift
    a = whole[20:116, 20:180][None]
    b = whole[20 - down : 116 - down, 20 - right : 180 - right][None]
    flow = DisFlow().flow(a, b)
    assert flow.shape == (1, 96, 160, 2)
    assert flow.dtype == np.float32
    inner = flow[0, 12:-12, 12:-12].reshape(-1, 2)
    np.testing.assert_allclose(inner.mean(axis=0), shift, atol=0.05)
    assert np.linalg.norm(inner - shift, axis=1).max() < 0.5


def test_flow_does_not_depend_on_the_pair_before():
    whole = texture(140, 220)
    a, b = whole[20:116, 20:180], whole[20:116, 17:177]
    twice = DisFlow().flow(np.stack([a, a]), np.stack([b, a]))
    np.testing.assert_array_equal(twice[1], DisFlow().flow(a[None], a[None])[0])
    assert np.abs(twice[1]).max() < 0.1


def test_flow_of_worlds_is_nearer_to_the_truth_than_no_flow(truth_of):
    """The mean end-point error of visible pixels is below seven tenths of the mean flow."""
    for seed in (HELD_OUT, HELD_OUT + 3):
        truth = truth_of(seed, SMALL)
        frames = truth.rgb
        exact, seen = truth.flow(frames[:-1], frames[1:]), ~truth.rendered.occluded
        error = np.linalg.norm(DisFlow().flow(frames[:-1], frames[1:]) - exact, axis=-1)[seen].mean()
        assert error < 0.7 * np.linalg.norm(exact, axis=-1)[seen].mean()


def test_flow_refuses_what_it_cannot_do():
    with pytest.raises(InvalidValue, match="32 pixels"):
        DisFlow().flow(np.zeros((1, 16, 64, 3), np.uint8), np.zeros((1, 16, 64, 3), np.uint8))
    with pytest.raises(InvalidValue, match="uint8"):
        DisFlow().flow(np.zeros((1, 64, 64, 3)), np.zeros((1, 64, 64, 3)))
    with pytest.raises(InvalidValue, match="preset"):
        DisFlow("slow")


# -------------------------------------------------------------------------------------------------------
# masks


def moving_square(camera, square, frames=5, side=40):
    """A textured plane, seen by a camera that shifts by ``camera`` px a frame, and a square that shifts
    too."""
    far, near = texture(240, 320), texture(100, 100, seed=1)
    clip, masks = [], []
    for t in range(frames):
        top, left = 60 + camera[1] * t, 60 + camera[0] * t
        picture = far[top : top + 120, left : left + 200].copy()
        y, x = 60 - side // 2 + square[1] * t, 80 - side // 2 + square[0] * t
        picture[y : y + side, x : x + side] = near[:side, :side]
        mask = np.zeros((120, 200), bool)
        mask[y : y + side, x : x + side] = True
        clip.append(picture)
        masks.append(mask)
    return np.stack(clip), np.stack(masks)


@pytest.mark.parametrize(("camera", "square"), [((0, 0), (4, 0)), ((3, 0), (2, 3)), ((2, 1), (-3, 0))])
def test_masks_of_a_square_that_moves_before_a_plane(camera, square):
    """Before a plane the homography explains the camera; what is found is the square and a rim around it."""
    clip, moving = moving_square(camera, square)
    found = EpipolarMasks().segment(clip, 12.0).moving
    assert found.dtype == bool
    assert found.shape == moving.shape
    hit = (found & moving).sum()
    assert hit / found.sum() > 0.75
    assert hit / moving.sum() > 0.95
    assert (found & ~dilate(moving, 12)).mean() < 0.01


def test_what_moves_a_quarter_pixel_a_frame_is_found_over_half_a_second():
    still, moving = moving_square((0, 0), (0, 0), frames=7)
    large = [enlarged(frame, 4) for frame in still]
    shifted = [np.roll(frame, t, axis=1) for t, frame in enumerate(large)]  # 1 of 4 pixels a frame
    square = np.repeat(np.repeat(moving[0], 4, axis=0), 4, axis=1)
    clip = np.stack(
        [
            np.where(np.roll(square, t, axis=1)[..., None], frame, large[0])[2::4, 2::4]
            for t, frame in enumerate(shifted)
        ]
    )
    truth = np.stack([np.roll(square, t, axis=1)[2::4, 2::4] for t in range(7)])
    found = EpipolarMasks(height=120).segment(clip, 12.0).moving
    hit = (found & truth).sum()
    assert hit / truth.sum() > 0.7
    assert hit / found.sum() > 0.7
    near = EpipolarMasks(height=120, longest=0.1).segment(clip, 12.0).moving  # to the next frame alone
    assert (near & truth).sum() < 0.5 * hit


@pytest.mark.parametrize("fps", [60.0, 240.0, 1e9])
def test_clips_shorter_than_the_least_baseline_are_judged_all_the_same(fps):
    clip, moving = moving_square((0, 0), (4, 0), frames=4)
    found = EpipolarMasks().segment(clip, fps).moving
    assert ((found & moving).sum(axis=(1, 2)) > 0.5 * moving.sum(axis=(1, 2))).all()


def test_a_wall_without_texture_is_not_judged():
    """Noise on a grey wall makes flow that means nothing."""
    clip, moving = moving_square((0, 0), (4, 0), frames=3)
    wall = np.zeros(clip.shape[1:3], bool)
    wall[:, :40] = True
    noise = np.random.default_rng(0).normal(128, 0.7, clip.shape).round().astype(np.uint8)
    clip = np.where(wall[..., None], noise, clip)
    found = EpipolarMasks().segment(clip, 12.0).moving
    assert not found[:, :, :36].any()
    assert (found & moving).sum() > 0.9 * moving.sum()


@pytest.mark.parametrize("camera", [(0, 0), (3, -2)])
def test_nothing_moves_where_only_the_camera_does(camera):
    clip, _ = moving_square(camera, (0, 0), frames=4)
    far = texture(240, 320)
    clip = np.stack([far[60 + camera[1] * t :, 60 + camera[0] * t :][:120, :200] for t in range(4)])
    assert EpipolarMasks().segment(clip, 12.0).shares.max() < 0.01


def test_masks_of_worlds_are_precise_rather_than_complete(truth_of):
    """What is marked moves more often than chance would have it; much that moves is not marked."""
    hits = marked = all_moving = pixels = 0
    for seed in (HELD_OUT, HELD_OUT + 3):
        truth = truth_of(seed, SMALL)
        found = EpipolarMasks().segment(truth.rgb, 4.0).moving
        moving = truth.segment(truth.rgb, 4.0).moving
        hits, marked = hits + (found & moving).sum(), marked + found.sum()
        all_moving, pixels = all_moving + moving.sum(), pixels + moving.size
    assert hits / marked > 2.0 * all_moving / pixels
    assert marked < all_moving


def test_one_frame_and_black_frames_show_no_motion():
    assert not EpipolarMasks().segment(np.zeros((1, 64, 96, 3), np.uint8), 12.0).moving.any()
    assert not EpipolarMasks().segment(np.zeros((4, 64, 96, 3), np.uint8), 12.0).moving.any()
    with pytest.raises(InvalidValue, match="fps"):
        EpipolarMasks().segment(np.zeros((4, 64, 96, 3), np.uint8), 0.0)
    with pytest.raises(InvalidValue, match="fps"):
        EpipolarMasks().segment(np.zeros((4, 64, 96, 3), np.uint8), np.inf)


def test_dilation_grows_by_a_square_and_stays_inside():
    mask = np.zeros((2, 9, 11), bool)
    mask[0, 4, 5] = mask[1, 0, 0] = True
    grown = dilate(mask, 2)
    assert grown[0].sum() == 25
    assert grown[0, 2:7, 3:8].all()
    assert grown[1].sum() == 9
    assert dilate(mask, 0).sum() == 2
    assert dilate(mask, 50).all()
    assert mask.sum() == 2  # the original is left alone


# ----------------------------------------------------------------------------------------- structure from
# motion


def errors_of(truth, result):
    reference = truth.cameras[result.registered_frames]
    return path_errors(result.cameras().world_from_camera, reference.world_from_camera)


def test_known_intrinsics_give_the_path(truth_of):
    """Every frame, 0.5 degrees, 2 % of the path; known intrinsics come back as they were given."""
    truth = truth_of(HELD_OUT + 3, SMALL)
    frames, cameras = truth.rgb[::2], truth.cameras[::2]
    masks = dilate(truth.segment(truth.rgb, 4.0).moving[::2], 2)
    result = Colmap().reconstruct(frames, masks, cameras.intrinsics[0])
    assert result.succeeded, result.message
    errors = path_errors(result.cameras().world_from_camera, cameras.world_from_camera)
    assert errors.rot_err_aligned_deg < 0.5
    assert errors.trans_err_aligned < 0.02 * errors.path_length
    np.testing.assert_allclose(result.intrinsics, cameras.intrinsics, rtol=1e-9)
    assert not result.metric
    assert result.mean_reprojection_error < 1.0
    assert result.observations_per_frame.min() >= 15
    assert result.mean_track_length >= 3
    assert len(result.points) > 100
    # Points and observations belong together: each is where its camera sees it, but for the error told.
    pose = result.camera_from_world[result.observation_frame]
    seen = np.einsum("mij,mj->mi", pose[:, :, :3], result.points[result.observation_point]) + pose[:, :, 3]
    lens = result.intrinsics[result.observation_frame]
    pixels = (seen[:, :2] / seen[:, 2:] * lens[:, :2] + lens[:, 2:]) * (SMALL[1], SMALL[0])
    distance = np.linalg.norm(pixels - result.observation_xy, axis=1)
    assert np.median(distance) < 0.5
    assert triangulation_angles(result).min() >= 0


def test_results_repeat():
    clip, _ = moving_square((3, 1), (0, 0), frames=4)
    first, second = (Colmap(enlarge_to=0).reconstruct(clip, None, LENS) for _ in range(2))
    assert first.succeeded
    np.testing.assert_array_equal(first.camera_from_world, second.camera_from_world)
    np.testing.assert_array_equal(first.points, second.points)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["incremental", "global"])
@pytest.mark.parametrize("size", [SMALL, MIDDLE])
def test_both_mappers_at_both_sizes(truth_of, mode, size):
    """Of four worlds with true masks and known intrinsics, three at least within 3 degrees and 5 % of the
    path."""
    good = 0
    for seed in (HELD_OUT + 1, HELD_OUT + 3, HELD_OUT + 4, HELD_OUT + 5):
        truth = truth_of(seed, size)
        masks = truth.segment(truth.rgb, 4.0).dilated(2)
        result = Colmap(mode=mode).reconstruct(truth.rgb, masks, truth.cameras.intrinsics)
        if result.succeeded:
            errors = errors_of(truth, result)
            good += errors.rot_err_aligned_deg < 3.0 and errors.trans_err_aligned < 0.05 * errors.path_length
    assert good >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [HELD_OUT + 1, HELD_OUT + 4, HELD_OUT + 5])
def test_unknown_intrinsics_are_estimated_or_doubted(truth_of, seed):
    """Short straight paths hardly fix a focal length: one is off by four times here, and is doubted."""
    truth = truth_of(seed, MIDDLE)
    masks = truth.segment(truth.rgb, 4.0).dilated(2)
    result = Colmap().reconstruct(truth.rgb, masks)
    lens = result.intrinsics[result.registered]
    assert (lens == lens[0]).all()  # one camera
    assert abs(lens[0, 0] / truth.cameras.intrinsics[0, 0] - 1.0) < 0.15 or doubts(result, MIDDLE)


def test_masks_matter_where_a_large_thing_moves():
    """A textured square of a third of the picture: without masks it is in the model, with them it is not."""
    clip, moving = moving_square((3, 1), (2, 0), frames=4, side=96)
    seen = []
    for masks in (None, dilate(moving, 2)):
        result = Colmap().reconstruct(clip, masks, LENS)
        assert result.status is SfmStatus.MODEL
        x, y = result.observation_xy.astype(int).T
        seen.append(moving[result.observation_frame, y, x].sum())
    assert seen[0] > 50
    assert seen[1] == 0


def turning(world):
    """The world's still version, seen by its first camera as it turns by 3 degrees a frame."""
    still = static_variant(world)
    poses = np.tile(world.cameras.world_from_camera[0], (6, 1, 1))
    poses[:, :3, :3] = poses[:, :3, :3] @ rotations.about(
        np.array([0.0, 1.0, 0.0]), np.radians(3.0 * np.arange(6))
    )
    cameras = Cameras(poses, world.cameras.intrinsics[:6], world.cameras.times[:6])
    scene = replace(still.scene, position=still.scene.position[:7], rotation=still.scene.rotation[:7])
    scene = replace(scene, moving=scene.moving[:6])
    return render(replace(still, scene=scene, cameras=cameras), *SMALL).rgb


@pytest.mark.parametrize("mode", ["incremental", "global"])
@pytest.mark.parametrize(
    "case", ["static", "two frames", pytest.param("pan", marks=pytest.mark.slow), "black", "one frame"]
)
def test_what_cannot_be_reconstructed_is_a_failed_or_doubtful_result(truth_of, mode, case):
    truth = truth_of(HELD_OUT + 3, SMALL)
    clip = {
        "static": lambda: np.repeat(truth.rgb[:1], 6, axis=0),
        "two frames": lambda: truth.rgb[:2],
        "pan": lambda: turning(truth.world),
        "black": lambda: np.zeros((5, *SMALL, 3), np.uint8),
        "one frame": lambda: truth.rgb[:1],
    }[case]()
    result = Colmap(mode=mode, time_limit=60.0).reconstruct(clip, None, truth.cameras.intrinsics[0])
    assert len(result) == len(clip)
    assert result.status is SfmStatus.FAILED or doubts(result, SMALL)
    if result.status is SfmStatus.FAILED:
        assert result.reason in ("no_model", "no_points")
        assert result.message
        with pytest.raises(InvalidValue, match="no frame has a pose"):
            result.cameras()


def test_a_worker_that_has_no_time_is_a_failed_clip(tmp_path):
    clip, _ = moving_square((3, 1), (0, 0))
    result = Colmap(time_limit=0.05, work_in=tmp_path).reconstruct(clip)
    assert (result.status, result.reason) == (SfmStatus.FAILED, "timeout")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_crashes_is_a_failed_clip_with_its_words(tmp_path, monkeypatch):
    worker = tmp_path / "colmap_worker.py"
    worker.write_text("import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr("camctrl_jax.estimators.colmap.__file__", str(tmp_path / "colmap.py"))
    clip, _ = moving_square((3, 1), (0, 0))
    result = Colmap(keep_failed=True, work_in=tmp_path / "work").reconstruct(clip)
    assert result.reason == "crashed"
    assert "SIGSEGV" in result.message
    assert "before" in result.message
    assert (next((tmp_path / "work").iterdir()) / "images" / "00004.png").exists()


def test_broken_inputs_raise():
    frames = np.zeros((3, 40, 64, 3), np.uint8)
    with pytest.raises(InvalidValue, match="True where pixels are to be ignored"):
        Colmap().reconstruct(frames, np.zeros((3, 40, 64), np.uint8))
    with pytest.raises(InvalidValue, match="masks"):
        Colmap().reconstruct(frames, np.zeros((2, 40, 64), bool))
    with pytest.raises(ValueError, match="look like pixels"):
        Colmap().reconstruct(frames, None, np.array([50.0, 50.0, 32.0, 20.0]))
    with pytest.raises(InvalidValue, match="uint8"):
        Colmap().reconstruct(frames.astype(np.float32))
    with pytest.raises(InvalidValue, match="mode"):
        Colmap(mode="both")


# ----------------------------------------------------------------------------------------------------
# appearance


def test_histograms_say_that_they_are_not_clip_and_see_drift():
    assert "NOT CLIP" in HistogramEmbedder.__doc__
    assert "clip" not in HistogramEmbedder().fingerprint().name.lower()
    picture = texture(96, 160)
    still = HistogramEmbedder().embed(np.repeat(picture[None], 4, axis=0))
    assert still.shape == (4, 720)
    np.testing.assert_allclose(np.linalg.norm(still, axis=1), 1.0, atol=1e-5)
    assert appearance_consistency(still) == pytest.approx(1.0, abs=1e-6)
    faded = np.stack([(picture * gain).astype(np.uint8) for gain in (1.0, 0.9, 0.6, 0.3)])
    cosines = HistogramEmbedder().embed(faded) @ still[0]
    assert (np.diff(cosines) < 0).all()
    assert cosines[1] > 0.9 > cosines[3]
    mirrored = HistogramEmbedder().embed(picture[None, :, ::-1])[0] @ still[0]
    blurred = texture(96, 160, seed=5)
    other = HistogramEmbedder().embed(blurred[None])[0] @ still[0]
    assert other < 1.0
    assert mirrored < 1.0


def test_histograms_of_black_and_of_tiny_pictures():
    black = HistogramEmbedder().embed(np.zeros((2, 12, 12, 3), np.uint8))
    assert np.isfinite(black).all()
    np.testing.assert_allclose(np.linalg.norm(black, axis=1), 1.0, atol=1e-5)
    with pytest.raises(InvalidValue, match="6 pixels"):
        HistogramEmbedder().embed(np.zeros((2, 4, 12, 3), np.uint8))
