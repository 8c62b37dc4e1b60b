"""``evaluate worlds`` and ``compare``: exact geometry, measures on faults, refusals, and whole small runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import threading

import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.protocols import Fingerprint, MotionMasks, SfmResult
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.comparing import CompareSettings, compare_results
from camctrl_jax.evaluate.worlds import Settings, evaluate_worlds, fool
from camctrl_jax.evaluate.worlds.bench import Bench, Opened, load_features, load_looks
from camctrl_jax.evaluate.worlds.estimates_page import estimates_page
from camctrl_jax.evaluate.worlds.fooling import blurred, faster
from camctrl_jax.evaluate.worlds.looking import Clip, Looks, worth_another_try
from camctrl_jax.evaluate.worlds.measuring import (
    baseline_records,
    clip_measures,
    distribution_measures,
    task_record,
)
from camctrl_jax.evaluate.worlds.running import _pools
from camctrl_jax.evaluate.worlds.sampling import given_frames, scored_frames
from camctrl_jax.evaluate.worlds.store import Store
from camctrl_jax.evaluate.worlds.summary import (
    LEAST_CLIPS,
    OUTCOMES,
    distances,
    motion_table,
    pose_table,
    summarised,
)
from camctrl_jax.evaluate.worlds.truth import PATH_SCALES, Truth, at_frames, cases_of, truths, warped
from camctrl_jax.extras import MissingExtra
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.worlds_scores import markdown_report
from camctrl_jax.worlds import WorldsConfig, render, sample_world
from camctrl_jax.worlds.benchmark import benchmark_scene
from camctrl_jax.worlds.corruptions import static_variant
from camctrl_jax.worlds.geometry import moving_now, render_geometry, true_motion
from camctrl_jax.worlds.rendering import render_truth
from camctrl_jax.worlds.scene import SKY_INSTANCE
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")

SHAPE = ClipShape(9, 32, 48)  # of the nano weights
LOOKED = 1 if importlib.util.find_spec("cv2") else 0
SMALL = {"count": 3, "seeds": 2, "samples": 1, "features": "none", "shown": 1, "motion": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Truth]:
    settings = Settings(tmp_path_factory.mktemp("out"), **SMALL).resolved(False)
    return truths(cases_of(settings, SHAPE, range(2)), SHAPE, 1)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A whole run of two rows, and the lines that it said."""
    lines = []
    out = tmp_path_factory.mktemp("run")
    settings = Settings(out, checkpoint=str(folder), steps=(2, 1), batch_size=2, **SMALL | {"motion": LOOKED})
    return settings, evaluate_worlds(settings, say=lines.append), lines


# -------------------------------------------------------------------------------------------- exact geometry


@pytest.fixture(scope="module")
def rendered():
    """A world of nine frames, and all that is true of it."""
    world = sample_world(HELD_OUT_FIRST_SEED, WorldsConfig(frames=9))
    return world, render(world, 32, 48, samples=1)


def test_geometry_of_many_worlds_is_that_of_each(rendered):
    world, frames = rendered
    other = sample_world(HELD_OUT_FIRST_SEED + 1, WorldsConfig(frames=9))
    depth, instances, seen = render_geometry([other, world], 32, 48)
    assert seen[:, 0].all()
    np.testing.assert_allclose(depth[1], frames.depth, rtol=1e-5)
    np.testing.assert_array_equal(instances[1], frames.instances)
    assert (instances[0] != instances[1]).any()
    np.testing.assert_array_equal(moving_now(world, instances[1]), frames.moving)
    flow, moving = true_motion(world, 32, 48)
    np.testing.assert_array_equal(flow, frames.flow)
    np.testing.assert_array_equal(moving, frames.moving[:-1])


def test_what_the_first_frame_shows_is_what_is_not_hidden_on_the_way_back_to_it(rendered):
    world, _ = rendered
    _, _, seen = render_geometry([world], 32, 48)
    back = at_frames(world, slice(8, None, -8))  # the last frame, then the first one
    np.testing.assert_array_equal(seen[0, 8], ~render_truth(back, 32, 48)[-1][0])
    assert 0.5 < seen[0, 8].mean() < 1.0


def test_a_camera_that_turns_on_the_spot_sees_again_all_that_its_first_frame_showed():
    world = static_variant(benchmark_scene(2, WorldsConfig(frames=9)).world)  # a pan
    instances, seen = (found[0] for found in render_geometry([world], 32, 48)[1:])
    cameras = world.cameras
    v, u = np.meshgrid((np.arange(32) + 0.5) / 32, (np.arange(48) + 0.5) / 48, indexing="ij")
    lens = cameras.intrinsics[0]
    rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], axis=-1)
    poses = cameras.world_from_camera[:, :3, :3]
    for t in range(9):
        turned = rays @ poses[t].T @ poses[0]
        x, y = (turned[..., i] / turned[..., 2] * lens[i] + lens[2 + i] for i in range(2))
        inside = (np.abs(x - 0.5) < 0.4999) & (np.abs(y - 0.5) < 0.4999)
        np.testing.assert_array_equal(seen[t] & inside, inside)
        assert not (seen[t] & (np.abs(x - 0.5) > 0.5001)).any()
    assert (seen[8] & (instances[8] == SKY_INSTANCE)).any()


def test_warp_of_the_first_frame_is_that_frame_where_the_camera_is_and_close_along_the_path(scenes):
    for truth in scenes:
        np.testing.assert_array_equal(truth.warp[0], truth.video[0])
        # Where the scene stands and was in view, the warp knows the colours, but for its resampling.
        still = truth.regions["still"][-1]
        error = np.abs(truth.warp[-1][still].astype(float) - truth.video[-1][still])
        apart = np.abs(truth.repeated[-1][still].astype(float) - truth.video[-1][still])
        assert error.mean() < 0.6 * apart.mean()


def test_warp_moves_a_plane_by_the_pixels_that_it_should():
    height, width, focal, distance = 16, 32, 0.5, 4.0
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (height, width, 3), np.uint8)
    depth = np.full((2, height, width), distance)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = 3 * distance / (focal * width)  # right by three pixels at that distance
    seen = np.ones(depth.shape, bool)
    seen[1, :, -3:] = False  # what comes in at the right
    video = warped(first, depth, seen, Cameras(poses, np.array([focal, 1.0, 0.5, 0.5])))
    np.testing.assert_array_equal(video[1][:, :-3], first[:, 3:])


def test_regions_part_the_picture_and_the_first_frame_hides_nothing(scenes):
    for truth in scenes:
        assert (sum(region.astype(int) for region in truth.regions.values()) == 1).all()
        assert not truth.regions["hidden"][0].any()
        assert truth.regions["hidden"][-1].any()


def test_some_frames_of_a_world_are_those_frames(rendered):
    world, frames = rendered
    part = at_frames(world, slice(2, None, 3))
    depth, _, _ = render_geometry([part], 32, 48)
    np.testing.assert_allclose(depth[0], frames.depth[2::3], rtol=1e-5)
    np.testing.assert_array_equal(part.scene.moving, world.scene.moving[2::3])
    assert part.frames == len(part.cameras) == 3


# -------------------------------------------------------------------------------------------------- measures


def test_measures_of_known_faults(scenes):
    scored = slice(5, None)
    for truth in scenes:
        perfect = clip_measures(truth.video, truth, scored)
        assert (perfect.psnr, perfect.ssim, perfect.sharpness, perfect.alive) == (100.0, 1.0, 1.0, 1.0)
        assert perfect.alpha == pytest.approx(1.0, abs=0.02)
        still = clip_measures(truth.repeated, truth, scored)
        assert (still.alpha, still.alive) == (0.0, 0.0)
        assert still.sharpness_kept is None
        soft = clip_measures(blurred(truth.video, 1.5), truth, scored, truth.video)
        assert soft.sharpness < 0.3 < soft.psnr
        assert soft.sharpness == soft.sharpness_kept
        assert soft.alpha == pytest.approx(1.0, abs=0.1)  # blur does not move it
        shorter = truth.scaled[PATH_SCALES.index(0.7)]
        short = truth.video.copy()
        short[8:] = shorter
        assert clip_measures(short, truth, scored).alpha == pytest.approx(0.7, abs=0.08)


def test_a_standing_camera_has_no_scale_of_its_path(tmp_path):
    settings = Settings(tmp_path, **SMALL | {"count": 10}).resolved(False)
    (truth,) = truths(cases_of(settings, SHAPE, [9]), SHAPE, 1)
    assert truth.case.stands
    assert clip_measures(truth.repeated, truth, slice(5, None)).alpha is None


def test_collapse_has_no_spread_and_a_worse_energy_score_than_honest_samples(scenes):
    truth, rng = scenes[0], np.random.default_rng(0)

    def draw():
        return np.clip(truth.video + 20.0 * rng.standard_normal(truth.video.shape), 0, 255).astype(np.uint8)

    honest, other = np.stack([draw() for _ in range(4)]), dataclasses.replace(truth, video=draw())
    collapsed = np.broadcast_to(honest[0], honest.shape)
    scores = {
        name: distribution_measures(samples, other, slice(None))
        for name, samples in (("honest", honest), ("collapsed", collapsed))
    }
    assert scores["honest"]["energy"] < 0.8 * scores["collapsed"]["energy"]
    assert scores["collapsed"]["spread"]["all"]["variance"] == 0.0
    parts = [scores["honest"]["spread"][name] for name in ("hidden", "moving", "still")]
    whole = scores["honest"]["spread"]["all"]
    assert sum(part["variance"] for part in parts) == pytest.approx(whole["variance"])
    assert sum(part["values"] for part in parts) == whole["values"]
    assert distribution_measures(honest[:1], other, slice(None)) is None


def test_a_world_whose_time_runs_faster_is_the_same_world_at_other_times(scenes):
    world = scenes[0].case.world
    same = faster(world, 1.0)
    np.testing.assert_allclose(same.scene.position, world.scene.position, atol=1e-6)
    np.testing.assert_allclose(same.cameras.world_from_camera, world.cameras.world_from_camera, atol=1e-9)
    double = faster(world, 2.0)  # every second frame
    np.testing.assert_allclose(double.scene.position[:5], world.scene.position[::2], atol=1e-6)
    np.testing.assert_allclose(double.scene.rotation[:5], world.scene.rotation[::2], atol=1e-6)
    np.testing.assert_allclose(
        double.cameras.world_from_camera[:5], world.cameras.world_from_camera[::2], atol=1e-9
    )
    # The camera has arrived and rests; things go back, and do not freeze.
    np.testing.assert_allclose(
        double.cameras.world_from_camera[4:], world.cameras.world_from_camera[[8] * 5], atol=1e-9
    )
    np.testing.assert_allclose(double.scene.position[6], world.scene.position[8 - 2], atol=1e-6)
    between = faster(world, 1.1).cameras
    turn = between.world_from_camera[:, :3, :3]
    np.testing.assert_allclose(turn @ np.swapaxes(turn, 1, 2), np.eye(3)[None].repeat(9, 0), atol=1e-9)


def test_what_each_task_is_given_and_scored_on():
    shape = ClipShape(49, 96, 160)
    assert [given_frames(task, shape) for task in ("i2v", "t2v", "extension")] == [1, 0, 13]
    assert [scored_frames(task, shape).start for task in ("i2v", "t2v", "extension")] == [5, 0, 13]
    assert given_frames("extension", SHAPE) == 5  # of nine


def test_frechet_distance_needs_clips_and_has_a_floor():
    rng = np.random.default_rng(0)

    def scene(shift):
        return {
            "features/truth": rng.normal(size=4),
            "features/another world": rng.normal(size=4),
            "features/a row/i2v/0": rng.normal(size=4) + shift,
            "features/a row/i2v/1": rng.normal(size=4) + shift,
        }

    few = distances([scene(0.0) for _ in range(LEAST_CLIPS - 1)])
    assert "reason" in few
    assert "floor" not in few
    found = distances([scene(2.0) for _ in range(400)])
    assert found["floor"] == found["twins"]["truth"] < 0.2
    assert found["twins"]["a row/i2v"] == pytest.approx(16.0, rel=0.1)  # four channels, shifted by two
    assert distances([{"strip/i2v": np.zeros(1)}]) is None


def test_features_are_left_out_where_they_could_say_nothing():
    shape = ClipShape(49, 96, 160)
    features, name = load_features("default", shape, LEAST_CLIPS)
    assert features is not None
    assert "none" not in name
    for few in (load_features("default", shape, 10), load_features("default", SHAPE, 256)):
        assert few[0] is None
        assert few[1].startswith("none")
    assert load_features("none", shape, 256) == (None, "none")


def test_an_extension_is_compared_with_true_clips_of_the_same_frames():
    rng = np.random.default_rng(0)
    scene_sets = [
        {
            "features/truth": rng.normal(size=3),
            "features/another world": rng.normal(size=3),
            "features/new frames/truth": rng.normal(size=3) + 5.0,
            "features/new frames/another world": rng.normal(size=3) + 5.0,
            "features/a row/extension/0": rng.normal(size=3) + 5.0,
            "features/a row/i2v/0": rng.normal(size=3),
        }
        for _ in range(400)
    ]
    found = distances(scene_sets)
    assert found["twins"]["a row/extension"] < 0.2
    assert found["twins"]["new frames/truth"] < 0.2  # its floor
    assert found["same_scenes"]["a row/i2v"] < 0.2


class _Perfect:
    """Structure from motion that knows the answer, or finds nothing, or two frames only."""

    def __init__(self, cameras, registered):
        self.cameras, self.registered, self.masks = cameras, registered, None

    def fingerprint(self):
        return Fingerprint("perfect", str(self.registered))

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        self.masks = masks
        if not self.registered:
            return SfmResult.failed(len(frames), "no_model", "nothing")
        chosen = self.cameras[::3][list(range(self.registered))]
        return SfmResult.of_cameras(chosen, range(self.registered), len(frames))


class _Truth:
    """Masks and flow of the renderer; the first frame moves to the right by two pixels."""

    def __init__(self, moving):
        self.moving = moving

    def fingerprint(self):
        return Fingerprint("truth", "1")

    def segment(self, frames, fps):
        if self.moving is None:
            raise ClipError("crashed", "no masks today")
        return MotionMasks(self.moving)

    def flow(self, a, b):
        return np.broadcast_to(np.float32([2.0, 0.0]), (*a.shape[:3], 2))


def looks_of(truth, registered, moving=None):
    known = _Truth(truth.moving if moving is None else moving)
    return Looks(known, known, HistogramEmbedder(), _Perfect(truth.case.world.cameras, registered))


def clip(truth, video=None, **options):
    world = truth.case.world
    return Clip(truth.video if video is None else video, world.cameras, world.fps, **options)


def test_estimated_cameras_are_compared_and_failures_counted(scenes):
    truth = scenes[1]
    found = {
        registered: looks_of(truth, registered).of_clip(clip(truth), motion=False, poses=True)["pose"]
        for registered in (3, 2, 0)
    }
    assert found[3]["rot_err_first_deg"] == pytest.approx(0.0, abs=1e-5)
    assert found[3]["trans_err_aligned_share"] == pytest.approx(0.0, abs=1e-6)
    assert found[3]["registered"] == 1.0
    assert found[2]["reason"] == "partial"
    assert "trans_err" not in found[2]  # a similarity fits two frames whatever they are
    assert found[0]["reason"] == "no_model"
    assert "trans_err" not in found[0]


def test_a_camera_that_stays_has_no_path_to_be_estimated(scenes):
    truth = scenes[0]
    still = dataclasses.replace(
        truth.case.world.cameras, world_from_camera=truth.case.world.cameras.world_from_camera[[0] * 9]
    )
    stays = dataclasses.replace(clip(truth), asked=still)
    assert looks_of(truth, 3).of_clip(stays, motion=False, poses=True) == {}


def test_motion_inside_estimated_and_inside_exact_masks(scenes):
    truth = scenes[0]
    nothing = np.zeros_like(truth.moving)
    found = looks_of(truth, 3).of_clip(clip(truth, moving=nothing), motion=True, poses=False)
    assert set(found) == {"motion"}
    assert found["motion"]["motion_px"] == 2.0
    assert found["motion"]["motion_px_exact_masks"] is None  # nothing moves in them
    assert found["motion"]["moving_share"] == pytest.approx(truth.moving[:-1].mean())
    still = looks_of(truth, 3).of_clip(clip(truth, truth.repeated), motion=True, poses=False)["motion"]
    assert (still["appearance"], still["appearance_to_first"]) == pytest.approx((1.0, 1.0))
    assert 0.5 < found["motion"]["appearance"] < 1.0


def test_structure_from_motion_gets_the_masks_that_the_row_is_called_after(scenes):
    truth = scenes[0]
    everything = np.ones_like(truth.moving)
    looks = looks_of(truth, 3, everything)
    looks.of_clip(clip(truth), motion=False, poses=True)
    assert looks.sfm.masks.all()
    looks.of_clip(clip(truth, moving=np.zeros_like(everything), exact_masks=True), motion=False, poses=True)
    assert not looks.sfm.masks.any()


def test_an_estimator_that_fails_is_a_reason_and_ends_nothing(scenes):
    truth = scenes[0]
    looks = dataclasses.replace(looks_of(truth, 3), masks=_Truth(None))
    found = looks.of_clip(clip(truth), motion=True, poses=True)
    assert found["motion"]["failed"] == found["pose"]["reason"] == "crashed"
    record = {"motion": {"clips": {"a": found["motion"]}, "exact": {"motion_px": 1.0, "moving_share": 0.1}}}
    record["poses"] = {"clips": {"a": found["pose"]}}
    assert motion_table([record])["clips"]["a"]["failed"] == {"crashed": 1}
    assert pose_table([record])["clips"]["a"]["failed"] == {"crashed": 1}
    assert worth_another_try(record)


def test_keys_of_estimates_tell_settings_and_versions_apart(scenes):
    one, other = looks_of(scenes[0], 3), looks_of(scenes[0], 2)
    assert one.motion_key == other.motion_key
    assert one.poses_key != other.poses_key
    assert dataclasses.replace(one, sfm=None).poses_key is None
    coarse = dataclasses.replace(one, embedder=HistogramEmbedder(2))
    assert coarse.motion_key != one.motion_key
    assert coarse.poses_key == one.poses_key


def test_pose_table_counts_what_is_registered_strict_wrong_and_left_out():
    def pose(off, registered=1.0, doubts=()):
        errors = {"trans_err_aligned_share": off, "trans_err": off, "degenerate": True}
        return {"registered": registered, "reason": "", "doubts": list(doubts)} | (
            errors if registered == 1.0 else {"reason": "partial"}
        )

    rows = [pose(0.01), pose(0.02), pose(0.3), pose(0.4, doubts=["gap"]), pose(None, registered=0.5)]
    records = [{"poses": {"clips": {"truth": row}}} for row in rows] + [{"poses": {"clips": {}}}]
    found = pose_table(records)
    assert (found["scenes"], found["stay"]) == (6, 1)
    row = found["clips"]["truth"]
    assert (row["clips"], row["wrong"], row["wrong_without_doubts"], row["degenerate"]) == (5, 2, 1, 4)
    assert row["all_registered"]["mean"] == 0.8
    assert row["without_doubts"]["mean"] == 0.6
    assert row["failed"] == {"partial": 1}
    assert row["trans_err_aligned_share"]["median"] == pytest.approx(0.16)
    assert pose_table([{}]) is None


def test_shares_have_intervals_of_shares(scenes):
    """Of four of four registered clips an interval by Student's t would be 1 to 1."""
    pose = {"registered": 1.0, "reason": "", "doubts": [], "trans_err_aligned_share": 0.01}
    task = {"mean": dict.fromkeys(OUTCOMES), "distribution": None, "not_finite": 0, "gain": {"repeated": 1.0}}
    records = [
        {
            "index": i, "seed": i, "path_class": "pan", "difficulty": "easy", "shares": {"hidden": 0.1},
            "baselines": {"reconstruction": {"not_finite": 0, "psnr_all_frames": 20.0}},
            "rows": {"row": {"extension": task if i else task | {"gain": {}}}},
            "poses": {"clips": {"truth": pose}},
        }
        for i in range(4)
    ]  # fmt: skip
    found = summarised(records, [{}] * 4)
    registered = found["measures"]["baseline/truth/registered"]
    assert (registered["mean"], registered["low"]) == (1.0, pytest.approx(0.51, abs=0.01))
    won = found["won"]["row/extension/gain_repeated"]
    assert (won["mean"], won["clips"], won["failed"]) == (1.0, 3, 1)


def test_what_failed_is_not_told_as_nothing_that_moves():
    looked = {"motion_px": None, "moving_share": 0.0, "appearance": 1.0, "appearance_to_first": 1.0}
    clips = [looked, looked, looked | {"motion_px": 2.0}, {"failed": "crashed", "message": ""}]
    exact = {"motion_px": 1.0, "moving_share": 0.1}
    table = motion_table([{"motion": {"clips": {"truth": one}, "exact": exact}} for one in clips])
    page = estimates_page({"motion": table, "poses": None, "estimators": {"masks": "some"}})
    assert any("| 2 of 4; failed: 1 crashed |" in line for line in page)


def test_clips_that_are_not_finite_are_counted_and_have_no_values(scenes):
    truth = scenes[0]
    samples = np.stack([truth.video, truth.repeated, truth.warp])
    finite = np.array([True, False, True])
    found = task_record(samples, finite, None, truth, None, "i2v", slice(5, None), 1)
    assert found["not_finite"] == 1
    assert found["distribution"] is None
    assert [one["psnr"] is None for one in found["per_sample"]] == [False, True, False]
    assert found["mean"]["psnr"] == pytest.approx(
        np.mean([one["psnr"] for one in found["per_sample"] if one["psnr"] is not None])
    )
    none = task_record(samples, finite & False, None, truth, None, "i2v", slice(5, None), 1)
    assert none["not_finite"] == 3
    assert set(none["mean"].values()) == {None}
    record = {
        "index": 0, "seed": 0, "path_class": "pan", "difficulty": "easy", "shares": {"hidden": 0.1},
        "baselines": baseline_records(truth, None, slice(5, None)), "rows": {"row": {"i2v": none}},
    }  # fmt: skip
    results = summarised([record, record], [{}] * 2)
    assert results["failed"] == {"reconstruction": {"not_finite": 2}, "row/i2v": {"not_finite": 6}}
    assert results["measures"]["row/i2v/psnr"] is None
    assert results["measures"]["baseline/truth/psnr"]["clips"] == 2


# ------------------------------------------------------------------------------------------------ whole runs


def test_decoy_is_the_path_of_another_world_from_the_own_first_frame(scenes):
    case, following = (truth.case for truth in scenes)
    np.testing.assert_allclose(
        case.decoy.relative_to(0).world_from_camera,
        following.world.cameras.relative_to(0).world_from_camera,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        case.decoy.world_from_camera[0], case.world.cameras.world_from_camera[0], atol=1e-12
    )


def test_whole_run_writes_its_results(run):
    settings, results, lines = run
    assert {path.name for path in settings.out.iterdir()} == {
        *(
            "results.json",
            "results.md",
            "error_over_time.png",
            "by_class.png",
            "best.png",
            "worst.png",
            "clips",
        )
    }
    assert json.loads((settings.out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert "left" in lines[-1]
    assert results["scenes"]["classes"] == {"forward": 1, "sideways": 1, "pan": 1}
    scene = results["per_scene"][0]
    assert scene["seed"] == 2_000_000
    row = "2 steps, camera 2, text 1"
    for task in ("i2v", "extension"):
        values = scene["values"]
        made = values[f"{row}/{task}/psnr"]
        assert values[f"{row}/{task}/gain_repeated"] == pytest.approx(
            made - values[f"{row}/{task}/psnr_repeated"]
        )
    assert scene["values"][f"{row}/t2v/psnr"] is None  # nothing to compare with
    assert scene["values"][f"{row}/t2v/energy"] > 0
    assert results["measures"][f"{row}/i2v/psnr"]["clips"] == 3
    page = (settings.out / "results.md").read_text()
    for words in ("## I2V", "## T2V", "## Extension", row, "1 steps, camera 2", "| forward |"):
        assert words in page
    assert [entry["steps"] for entry in results["camera"]] == [2, 1]
    assert results["failed"] == {}
    if LOOKED:
        looked = {"truth", "reconstruction", "exact-geometry warp", f"{row}/i2v", f"{row}/t2v"}
        assert looked <= set(results["motion"]["clips"])
        assert 0 < scene["values"][f"{row}/t2v/appearance"] <= 1
        assert results["motion"]["exact"]["motion_px"]["mean"] > 0
        assert "## Motion and appearance, estimated" in page
    assert "| 2 | 2 |" in markdown_report(results)  # what a weights card shows


@pytest.mark.parametrize("asked", [{"motion": 2}, {"poses": 2}])
def test_estimates_that_were_asked_for_need_their_packages_before_any_work(
    folder, tmp_path, monkeypatch, asked
):
    def missing(*, with_poses):
        raise MissingExtra("cv2 is needed here but is not installed.")

    monkeypatch.setattr(Looks, "default", missing)
    settings = Settings(tmp_path / "out", checkpoint=str(folder), **SMALL | asked)
    with pytest.raises(UserError, match="cv2 is needed"):
        fool(settings, say=lambda line: None)
    assert not (tmp_path / "out").exists()
    # Not asked for: left out with a word.
    looks, without = load_looks(
        Settings(tmp_path, **SMALL | {"motion": None}).resolved(False), asked_for_motion=False
    )
    assert looks is None
    assert "cv2 is needed" in without


def test_a_second_run_measures_nothing_and_a_lost_scene_alone(run, folder):
    settings, results, _ = run

    def again(changed):
        lines = []
        found = evaluate_worlds(changed, say=lines.append)
        return found, lines

    found, _ = again(settings)
    assert found["measured_now"] == 0
    assert found["per_scene"] == results["per_scene"]
    (settings.out / "clips" / "scene_001.json").write_text("{")  # half a file
    found, _ = again(settings)
    assert found["measured_now"] == 1
    for one, other in zip(found["per_scene"], results["per_scene"], strict=True):
        assert one["values"] == pytest.approx(
            other["values"], abs=0.02, nan_ok=True
        )  # another batch, rounding
    # More scenes keep those that are there; videos and other samples do not.
    if importlib.util.find_spec("av"):
        videos = dataclasses.replace(settings, count=2, videos=True)
        assert [again(videos)[0]["measured_now"] for _ in range(2)] == [2, 0]
        assert (settings.out / "clips/scene_001.mp4").exists()
    found, _ = again(dataclasses.replace(settings, count=2))
    assert found["measured_now"] == 0
    found, _ = again(dataclasses.replace(settings, count=2, steps=(1,), tasks=("i2v",)))
    assert found["measured_now"] == 2


def test_what_is_kept_of_a_scene_is_whole_or_measured_anew(tmp_path):
    store = Store(tmp_path, "mine")
    assert store.read(0) is None
    assert not store.holds_another(0)
    store.write(0, {"a": 1}, {"features": np.arange(50.0)})
    assert store.read(0)["a"] == 1
    assert Store(tmp_path, "yours").read(0) is None
    assert Store(tmp_path, "yours").holds_another(0)
    path = store.path(0).with_suffix(".npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert store.read(0) is None  # cut short
    path.write_bytes(whole[:60] + b"x" * 40 + whole[100:])
    with pytest.raises(UserError, match="Delete it and run the same command"):
        store.arrays(0)
    path.unlink()
    assert store.read(0) is None


def test_a_scene_that_another_run_took_is_named(tmp_path):
    bench = Bench(Settings(tmp_path, **SMALL).resolved(False), SHAPE, None, None, None, None)
    store = Store(tmp_path, "mine")
    for index in range(3):
        store.write(index, {"a": 1}, {})
    begun = Opened(bench, {}, store, [], 0.0)
    assert len(begun.stored()[0]) == 3
    Store(tmp_path, "yours").write(1, {"a": 2}, {})
    with pytest.raises(UserError, match=r"scene_001\.json was measured, and is gone.*another run"):
        begun.stored()


def test_control_c_drops_what_waits_and_errors_keep_it():
    for error, least, most in ((KeyboardInterrupt, 0, 2), (UserError, 6, 6)):
        done, release = [], threading.Event()

        def slow(place, done=done, release=release):
            release.wait(10.0)
            done.append(place)

        def work(error=error, slow=slow, release=release):
            with _pools(1) as pools:
                for place in range(6):
                    pools.measuring.submit(slow, place)
                threading.Timer(0.1, release.set).start()
                raise error

        with pytest.raises(error):
            work()
        assert least <= len(done) <= most


def test_worlds_with_their_own_paths_as_before_the_benchmark(folder, tmp_path):
    settings = Settings(
        tmp_path, checkpoint=str(folder), paths="own", tasks=("i2v",), steps=(1,), **SMALL | {"seeds": 1}
    )
    results = evaluate_worlds(settings, say=lambda line: None)
    assert results["seeds"] == [1_000_000, 1_000_001, 1_000_002]
    row = results["camera"][0]
    assert len(row["per_world"]["true_path"]) == 3
    assert results["spread_over_skill"] == {}
    assert "own paths (seeds 1000000 to 1000002)" in (tmp_path / "results.md").read_text()


def test_autoencoder_alone_is_measured_by_reconstruction(tmp_path):
    vae = save_nano(tmp_path / "vae", mmdit=False)
    shape = {"frames": 9, "height": 32, "width": 48}
    settings = Settings(tmp_path / "out", checkpoint=str(vae), **shape, **SMALL | {"count": 2})
    results = evaluate_worlds(settings, say=lambda line: None)
    assert "camera" not in results
    assert 0 < results["reconstruction"]["psnr_db"] < 60
    assert "I2V" not in (tmp_path / "out" / "results.md").read_text()


def test_fooling_table(folder, tmp_path):
    settings = Settings(
        tmp_path, checkpoint=str(folder), steps=(1,), **SMALL | {"count": 2, "motion": LOOKED}
    )
    results = fool(settings, say=lambda line: None)
    rows = results["rows"]
    if LOOKED:
        assert set(results["motion"]["clips"]) == set(rows)
        assert results["motion"]["clips"]["first frame repeated"]["appearance"]["mean"] == pytest.approx(1.0)
    assert len(rows) == 18

    def mean(name, measure):
        return rows[name][measure]["mean"]

    assert mean("true render", "psnr") == 100.0
    assert mean("true render, path times 0.8", "alpha") == pytest.approx(0.8, abs=0.06)
    assert mean("mean of the samples", "psnr") > mean("samples of the weights", "psnr")  # PSNR rewards blur
    assert mean("mean of the samples", "energy") > mean("samples of the weights", "energy")  # this does not
    assert mean("one sample repeated", "energy") > mean("samples of the weights", "energy")
    assert mean("first frame repeated", "alpha") == 0.0
    blurs = [mean(f"truth blurred by {width} px", "sharpness") for width in ("0.7", "1.5", "3")]
    assert 1.0 > blurs[0] > blurs[1] > blurs[2]
    table = (tmp_path / "fooling.md").read_text()
    assert "truth played 10 % faster" in table
    assert fool(settings, say=lambda line: None)["rows"] == rows


# ------------------------------------------------------------------------------------------------- comparing


def result(tmp_path, name, shift, rows=("row",), seeds=range(40)):
    rng = np.random.default_rng(0)
    scenes = [
        {
            "index": i,
            "seed": i,
            "values": {f"{row}/i2v/psnr": 20 + 5 * rng.standard_normal() + shift for row in rows}
            | {"baseline/reconstruction/psnr": 28.0},
        }
        for i in seeds
    ]
    folder = tmp_path / name
    folder.mkdir()
    content = {"clip": {"frames": 49}, "per_scene": scenes}
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def test_a_paired_comparison_sees_what_the_spread_of_scenes_hides(tmp_path, capsys):
    one, other = result(tmp_path, "one", 0.0), result(tmp_path, "other", 0.1)
    assert main(["compare", str(one), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    difference = found["differences"]["row/i2v/psnr"]
    assert difference["mean"] == pytest.approx(0.1)
    assert difference["low"] == pytest.approx(0.1)  # the same scenes, each better by as much
    assert difference["second"] - difference["first"] == pytest.approx(0.1)
    assert main(["compare", str(one), str(other / "results.json")]) == 0
    assert "| row/i2v/psnr |" in capsys.readouterr().out


def test_only_scenes_and_rows_that_both_have_are_compared(tmp_path):
    one = result(tmp_path, "one", 0.0, rows=("4 steps", "8 steps"))
    other = result(tmp_path, "other", 0.0, rows=("32 steps", "4 steps"), seeds=range(30, 60))
    found, _ = compare_results(CompareSettings(one, other))
    assert (found["scenes"], found["left_out"]) == (10, [30, 20])
    assert "4 steps/i2v/psnr" in found["differences"]
    chosen, _ = compare_results(CompareSettings(one, other, ("8 steps", "32 steps")))
    assert "8 steps -> 32 steps/i2v/psnr" in chosen["differences"]
    lone = result(tmp_path, "lone", 0.0, rows=("2 steps",))
    with pytest.raises(UserError, match="no row in common"):
        compare_results(CompareSettings(one, lone))
    with pytest.raises(UserError, match="not among"):
        compare_results(CompareSettings(one, other, ("8 steps", "64 steps")))
    far = result(tmp_path, "far", 0.0, seeds=range(90, 99))
    with pytest.raises(UserError, match="no scene in common"):
        compare_results(CompareSettings(one, far))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no such file"):
        compare_results(CompareSettings(one, tmp_path / "empty"))
    shutil.copy(one / "results.json", tmp_path / "old.json")
    (tmp_path / "old.json").write_text('{"camera": []}')
    with pytest.raises(UserError, match="no results of evaluate captions, checkpoint, explorations, videos"):
        compare_results(CompareSettings(one, tmp_path / "old.json"))


def test_a_measure_that_no_scene_has_is_none_and_one_of_few_counts_the_others():
    baselines = [{"psnr": 28.0, "psnr_all_frames": 28.0, "alpha": value} for value in (None, 1.0, 1.0)]
    records = [
        {
            "index": i,
            "seed": i,
            "path_class": "pan",
            "difficulty": "easy",
            "shares": {"hidden": 0.1},
            "baselines": {"reconstruction": measures | {"not_finite": 0}},
            "rows": {},
        }
        for i, measures in enumerate(baselines)
    ]
    found = summarised(records, [{}] * 3)
    assert found["measures"]["baseline/reconstruction/alpha"]["failed"] == 1
    assert found["measures"]["baseline/reconstruction/ssim"] is None


def changed(folder, name, **values):
    """Results with other entries."""
    other = folder.parent / name
    other.mkdir()
    content = json.loads((folder / "results.json").read_text()) | values
    (other / "results.json").write_text(json.dumps(content))
    return other


def test_results_of_another_truth_are_refused_and_estimates_by_other_means_left_out(tmp_path):
    one = result(tmp_path, "one", 0.0)
    scenes = json.loads((one / "results.json").read_text())["per_scene"]
    for scene in scenes:
        scene["values"] |= {"row/i2v/motion_px": 1.0, "row/i2v/rot_err_aligned_deg": 1.0}
        scene["values"]["row/i2v/registered"] = 1.0
    looked = {"format": 2, "request": {"samples": 2}, "per_scene": scenes}
    one = changed(one, "first", **looked, estimates={"motion": "a", "poses": "b"})
    same = compare_results(CompareSettings(one, one))[0]["differences"]
    assert {"row/i2v/motion_px", "row/i2v/rot_err_aligned_deg"} <= set(same)
    registered = same["row/i2v/registered"]  # all of 40 in both: no proof that none would differ
    assert (registered["mean"], registered["high"]) == (0.0, -registered["low"])
    assert 0.01 < registered["high"] < 0.1
    other = changed(one, "second", estimates={"motion": "a", "poses": "c"})
    found, page = compare_results(CompareSettings(one, other))
    assert "row/i2v/motion_px" in found["differences"]
    assert "row/i2v/rot_err_aligned_deg" not in found["differences"]
    assert "by other means" in page
    assert "do so by chance" in page
    for name, values in (("rays", {"request": {"samples": 1}}), ("format", {"format": 1})):
        with pytest.raises(UserError, match=name):
            compare_results(CompareSettings(one, changed(one, name, **values)))


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 1}, "at least 2 scenes"),
        ({"count": 257}, "256 scenes"),
        ({"first_seed": 1_000_000}, "fixed seeds"),
        ({"paths": "own", "first_seed": 999_990}, "partly training seeds"),
        ({"paths": "short"}, "none of benchmark"),
        ({"tasks": ("i2v", "v2v")}, "v2v"),
        ({"seeds": 0}, "seeds=0"),
        ({"steps": (32, 0)}, "steps is 0"),
        ({"steps": ()}, "expected a tuple of one or more"),
        ({"steps": 32}, "expected a tuple of one or more"),
        ({"camera_guidance": ()}, "expected a tuple of one or more"),
        ({"samples": 0}, "samples=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"frames": 0}, "frames=0"),
        ({"camera_guidance": (float("nan"),)}, "Guidance.camera"),
        ({"frames": 5}, "take 9 or more"),
        ({"width": 50}, "width=50"),
        ({"checkpoint": "nowhere"}, "No weights at"),
        ({"features": "nowhere"}, "No clip features at"),
    ],
)
def test_requests_that_cannot_work_are_refused_before_any_work(folder, tmp_path, changes, message):
    settings = {"out": tmp_path / "out", "checkpoint": str(folder)}
    with pytest.raises(UserError, match=message):
        evaluate_worlds(Settings(**settings | changes), say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": "own"}, "paths end at rest"),
        ({"videos": True}, "no videos"),
        ({"steps": (1, 2)}, "was given 2"),
    ],
)
def test_fooling_refuses_what_it_would_leave_out(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        fool(Settings(tmp_path / "out", **changes), say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_amounts_are_by_the_device_unless_asked_for(tmp_path):
    small, large = (Settings(tmp_path).resolved(on) for on in (False, True))
    assert (small.count, small.seeds, small.steps) == (10, 2, (8,))
    assert (large.count, large.seeds, large.steps, large.camera_guidance) == (256, 4, (32,), (2.0,))
    assert Settings(tmp_path, laptop=True).resolved(True).count == 10
    assert Settings(tmp_path, count=5, steps=(2, 3)).resolved(True).steps == (2, 3)


def test_a_second_autoencoder_beside_an_autoencoder_is_refused(tmp_path, capsys):
    vae = save_nano(tmp_path / "vae", mmdit=False)
    other = save_nano(tmp_path / "other", mmdit=False)
    out = tmp_path / "out"
    assert main(["worlds", "--checkpoint", str(vae), "--vae", str(other), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"--checkpoint {vae}" in told
    assert f"--vae {other}" in told
    assert not out.exists()


def test_base_model_has_nothing_to_compare(tmp_path, capsys):
    base = save_nano(tmp_path / "base", camera=False)
    status = main(["worlds", "--checkpoint", str(base), "--out", str(tmp_path / "out")])
    assert status == 1
    assert capsys.readouterr().err.startswith(f"error: {base} has no camera input")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["worlds", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--camera-guidance", "decoy", "results.json", "held-out", "--laptop", "alpha*"):
        assert word in text


def test_psnr_of_the_repeated_frame_is_the_baseline(scenes):
    truth = scenes[0]
    measured = clip_measures(truth.repeated, truth, slice(5, None))
    assert measured.psnr == pytest.approx(float(psnr(truth.repeated[5:], truth.video[5:])))


def test_weights_of_neither_network_are_refused(tmp_path):
    folder = save_nano(tmp_path / "weights")
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vae": None, "mmdit": None}))
    with pytest.raises(UserError, match="holds neither a transformer nor an autoencoder"):
        evaluate_worlds(Settings(tmp_path / "out", checkpoint=str(folder)), say=lambda line: None)
