"""``evaluate explorations``: what was seen before, arms, measures of known faults, refusals, a whole run."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.camera import preset
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.comparing import CompareSettings, compare_results
from camctrl_jax.evaluate.explorations import Settings, evaluate_explorations, running
from camctrl_jax.evaluate.explorations.arms import default_arms, fitted_arm, parse_arm
from camctrl_jax.evaluate.explorations.measuring import clip_records, return_record
from camctrl_jax.evaluate.explorations.running import _running, _safely
from camctrl_jax.evaluate.explorations.sampling import explored, held_memory, retrieved_of
from camctrl_jax.evaluate.explorations.settings import Plan
from camctrl_jax.evaluate.explorations.summary import CURVES, summarised
from camctrl_jax.evaluate.explorations.takes import REGIONS, Truth, take_of, truth_of
from camctrl_jax.evaluate.explorations.visibility import ever_moving, seen_before
from camctrl_jax.sampling.pipeline import ClipBatch
from camctrl_jax.worlds import at_frames, render_rgb
from camctrl_jax.worlds.rendering import render_truth

pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")

SHAPE = ClipShape(9, 32, 48)  # of the nano weights
CLIPS = 6


def settings_of(out, **values):
    small = {"count": 2, "clips": CLIPS, "steps": 1, "samples": 1, "batch_size": 2, "shown": 1}
    return Settings(out, **small | values).resolved(False)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return Plan.of(settings_of(tmp_path_factory.mktemp("out")), SHAPE)


@pytest.fixture(scope="module")
def truth(plan, tmp_path_factory) -> Truth:
    take = take_of(settings_of(tmp_path_factory.mktemp("out")), plan, 0)
    video = np.asarray(render_rgb([take.world], SHAPE.height, SHAPE.width, 1)[0])
    return truth_of(take, plan, video)


# ------------------------------------------------------------------------------------------- what was seen


def test_what_an_earlier_frame_shows_is_what_is_not_hidden_on_the_way_to_it(truth):
    """By the renderer's own occlusion between neighbours, of frames put side by side."""
    world, later, earlier = truth.take.world, 14, 3
    depth, instances, _, _, occluded = render_truth(
        at_frames(world, [later, earlier]), SHAPE.height, SHAPE.width
    )
    shown = depth[:1], instances[:1]
    found = seen_before(world, [later], *shown, range(earlier, earlier + 1))[0]
    still = ~ever_moving(world, instances[0])
    np.testing.assert_array_equal(found[still], ~occluded[0][still])
    assert not found[~still].any()
    assert 0.05 < found[still].mean() < 0.95


def _depth_test(world, depth, instances, later, earlier):
    """Seen and hidden for sure, bool [H, W] each, by nothing but the depth maps of two frames: a point is
    seen where the four pixels round its place in the earlier frame show its object at its depth, hidden where
    all of them are nearer."""
    height, width = depth.shape[1:]
    poses = world.cameras.world_from_camera
    fx, fy, cx, cy = world.cameras.intrinsics[later] * [width, height, width, height]
    v, u = np.mgrid[:height, :width] + 0.5
    sky = ~np.isfinite(depth[later])
    z = np.where(sky, 1e6, depth[later])  # far enough to be a direction
    points = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z, np.ones_like(z)], axis=-1)
    x, y, z, _ = np.moveaxis(points @ (np.linalg.inv(poses[earlier]) @ poses[later]).T, -1, 0)
    fx, fy, cx, cy = world.cameras.intrinsics[earlier] * [width, height, width, height]
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = fx * x / z + cx - 0.5, fy * y / z + cy - 0.5
    inside = (z > 0.01) & (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
    outside = (z < 0) | (column < -0.6) | (column > width - 0.4) | (row < -0.6) | (row > height - 0.4)
    left = np.clip(np.nan_to_num(column), 0, width - 2).astype(int)
    top = np.clip(np.nan_to_num(row), 0, height - 2).astype(int)
    around = [(earlier, top + a, left + b) for a in (0, 1) for b in (0, 1)]
    same = np.all([instances[place] == instances[later] for place in around], axis=0)
    depths = np.stack([depth[place] for place in around])
    here = sky | ((depths.min(axis=0) <= 1.02 * z) & (depths.max(axis=0) >= 0.98 * z))
    nearer = depths.max(axis=0) < np.where(sky, 1e5, 0.9 * z - 0.05)
    return inside & same & here, outside | (inside & nearer)


@pytest.mark.parametrize("index", [0, 1])
def test_what_was_seen_agrees_with_depth_maps(index, plan, tmp_path):
    take = take_of(settings_of(tmp_path), plan, index)
    world = take.world
    depth, instances = render_truth(world, 48, 80)[:2]
    later = plan.frames - 6
    still = ~ever_moving(world, instances[later])
    shown = depth[later : later + 1], instances[later : later + 1]
    sure = np.zeros(3)
    for earlier in range(0, later, 7):
        found = seen_before(world, [later], *shown, range(earlier, earlier + 1))[0]
        seen, hidden = _depth_test(world, depth, instances, later, earlier)
        assert not (seen & hidden).any()
        assert found[still & seen].mean() > 0.99 or not (still & seen).any()
        assert found[still & hidden].mean() < 0.01 or not (still & hidden).any()
        sure += (still & seen).sum(), (still & hidden).sum(), still.sum()
    assert sure[:2].min() > 0.02 * sure[2]  # both occur
    assert sure[:2].sum() > 0.7 * sure[2]


def test_the_frames_of_a_history_show_together_what_each_shows(truth):
    world = truth.take.world
    depth, instances = render_truth(at_frames(world, [14, 12]), SHAPE.height, SHAPE.width)[:2]
    each = [seen_before(world, [14, 12], depth, instances, range(s, s + 1)) for s in (0, 1, 2)]
    whole = seen_before(world, [14, 12], depth, instances, range(3))
    np.testing.assert_array_equal(whole, np.any(each, axis=0))
    onwards = seen_before(world, [14, 12], depth, instances, range(1), each[1] | each[2])
    np.testing.assert_array_equal(whole, onwards)
    assert not seen_before(world, [14, 12], depth, instances, range(0)).any()


def test_regions_part_the_picture_and_all_of_it_was_seen_where_a_path_comes_back(truth, plan):
    for clip, regions in enumerate(truth.regions):
        parts = [regions[name].astype(int) for name in ("seen", "unseen", "moving")]
        assert (sum(parts) == 1).all()
        assert not (regions["remembered"] & ~regions["seen"]).any()
        assert all(frame in plan.new(clip) for frame in truth.measured[clip])
    # Out and back: what the last frame shows, the first one did, but for what a thing that moves hid there.
    assert truth.measured[-1][-1] == plan.frames - 1
    instances = render_truth(at_frames(truth.take.world, [0, 1]), SHAPE.height, SHAPE.width)[1]
    hid = ever_moving(truth.take.world, instances[0])
    assert not (truth.regions[-1]["unseen"][-1] & ~hid).any()
    assert truth.regions[-1]["unseen"].mean() < 0.01
    assert truth.regions[-1]["remembered"].any()
    assert truth.returns[0] == (0, plan.frames - 1)
    assert all(b - a >= SHAPE.frames for a, b in truth.returns)


# -------------------------------------------------------------------------------------------------- measures


def test_a_perfect_exploration_and_one_with_a_jump_at_every_seam(truth, plan):
    perfect = clip_records(truth.video, truth, plan)
    assert {clip["psnr"] for clip in perfect} == {100.0}
    assert {clip["sharpness"] for clip in perfect} == {1.0}
    dark = (truth.video // 2).astype(np.uint8)
    jumps = dark.copy()
    for clip in range(1, plan.clips, 2):
        jumps[list(plan.new(clip))] += 40
    smooth, jumping = clip_records(dark, truth, plan), clip_records(jumps, truth, plan)
    for one, other in list(zip(smooth, jumping, strict=True))[1:]:
        assert other["seam"] > one["seam"] + 20.0
        assert other["inside"] == pytest.approx(one["inside"], abs=1e-6)
        assert one["sharpness"] == pytest.approx(0.25, abs=0.05)
    assert smooth[0]["seam"] is None


def test_psnr_of_a_region_sees_faults_of_that_region_alone(truth, plan):
    clip = CLIPS - 1
    for name in ("seen", "remembered"):
        faulty = truth.video.copy()
        for place, frame in enumerate(truth.measured[clip]):
            faulty[frame][truth.regions[clip][name][place]] ^= 64
        found = clip_records(faulty, truth, plan)[clip]
        assert found[f"psnr_{name}"] == pytest.approx(20 * np.log10(255 / 64), abs=1e-6)
        assert found["psnr_unseen"] is None  # no pixels
        assert found["psnr"] > found[f"psnr_{name}"]


def test_frames_of_equal_pose_are_compared_with_each_other(truth, plan):
    perfect = return_record(truth.video, truth)
    assert perfect["difference"] == perfect["true"] < 8.0
    forgotten = truth.video.copy()
    for a, b in truth.returns:
        forgotten[b] = 255 - forgotten[a]
    assert return_record(forgotten, truth)["difference"] > 50.0
    # It knows nothing of the truth: a grey video is consistent.
    assert return_record(np.full_like(truth.video, 128), truth)["difference"] == 0.0
    assert return_record(truth.video, dataclasses.replace(truth, returns=(), same=truth.same[:0])) is None


# ------------------------------------------------------------------------------------------------------ arms


def test_arms_by_their_names():
    assert parse_arm("last-13") == dataclasses.replace(parse_arm("last-5"), name="last-13", last=13)
    both = parse_arm("retrieved-4-truth+history1.5+noise0.05")
    assert (both.memory, both.last, both.retrieved) == ("truth", 5, 4)
    assert (both.history, both.noise) == (1.5, 0.05)
    assert "+" not in both.folder
    for wrong in (
        "last-12",
        "last",
        "first",
        "random-4-truth",
        "retrieved-0",
        "last-5+fog1",
        "last-5+noisex",
    ):
        with pytest.raises(UserError, match="expected"):
            parse_arm(wrong)
    with pytest.raises(UserError, match="twice"):
        parse_arm("last-5+noise0.1+noise0.2")


def test_arms_are_fitted_to_the_weights():
    shape = ClipShape(49, 96, 160)
    assert fitted_arm(parse_arm("last-5-first"), 4, shape, 36).retrieved == 4
    assert fitted_arm(parse_arm("random-2"), 4, shape, 36).retrieved == 2
    with pytest.raises(UserError, match="without retrieved"):
        fitted_arm(parse_arm("retrieved-4"), 0, shape, 36)
    windows = {last: fitted_arm(parse_arm(f"last-{last}"), 0, shape, 36).window for last in (5, 13, 17, 49)}
    assert windows == {5: 49, 13: 49, 17: 97, 49: 97}
    with pytest.raises(UserError, match="memory is trained in windows of 49"):
        fitted_arm(parse_arm("last-17-first"), 4, shape, 36)
    with pytest.raises(UserError, match="at most 49"):
        fitted_arm(parse_arm("last-53"), 0, shape, 36)
    assert default_arms(0, 13) == ("last-13", "last-5")
    assert default_arms(4, 13)[1:] == ("last-5-first", "random-4", "retrieved-4", "retrieved-4-truth")


def test_what_arms_retrieve_lies_before_the_last_frames():
    path = preset("orbit_left", 60)
    for name in ("last-5-first", "random-4", "retrieved-4", "retrieved-4-truth"):
        arm = dataclasses.replace(parse_arm(name), retrieved=4)
        found = arm.indices(path[:49], path[49:], 7)
        assert found.shape == (4,)
        assert found.max() < 44
        assert len(set(found.tolist())) == (1 if name == "last-5-first" else 4)
        np.testing.assert_array_equal(found, arm.indices(path[:49], path[49:], 7))
    # Of a short history, what there is.
    assert set(parse_arm("random-4").indices(path[:6], path[6:], 0).tolist()) == {0}


def test_what_is_retrieved_is_known_before_there_is_a_video(truth, plan):
    arm = fitted_arm(parse_arm("retrieved-2"), 2, SHAPE, plan.added)
    of_truth = fitted_arm(parse_arm("retrieved-2-truth+history1.5"), 2, SHAPE, plan.added)
    assert arm.choice == of_truth.choice
    assert arm.choice != fitted_arm(parse_arm("random-2"), 2, SHAPE, plan.added).choice
    found = retrieved_of(arm.choice, plan, truth)
    path = truth.take.world.cameras
    for clip, indices in enumerate(found, start=1):
        new = plan.new(clip)
        np.testing.assert_array_equal(
            indices, arm.indices(path[: new.start], path[new.start : new.stop], seed=0)
        )
    pipeline = _Recorder()
    first, one = truth.video[None, : SHAPE.frames], [np.array([clip, 0]) for clip in range(1, plan.clips)]
    told = explored(pipeline, settings_of(None), plan, arm, [truth], first, lambda: 0, [one])
    assert told.retrieved == [[[clip, 0]] for clip in range(1, plan.clips)]
    assert len(told.held) == plan.clips - 1


def test_what_clips_leave_behind_is_told_though_the_peak_is_no_higher():
    made = {"compiled": [3, 0], "memory": [900, 900], "kept": True}
    found = _running([made | {"held": [100, 160]}, made | {"held": [100, 100]}])
    assert found["memory_after_second"] == 0
    assert found["held_after_second"] == 60
    assert _running([made])["held_after_second"] is None  # of a version before
    before = held_memory()
    kept = jax.device_put(np.ones(1 << 18, np.float32))
    assert held_memory() - before >= kept.nbytes


class _Recorder:
    """A pipeline that adds frames of the clip's number, and keeps what it was asked."""

    def __init__(self):
        self.asked: list[ClipBatch] = []
        self.windows: set[int] = set()

    def extend(self, video, clips, extension, sampling):
        self.asked.append(clips)
        new = np.full((len(video), 4 * extension.new_latents, *video.shape[2:]), len(self.asked), np.uint8)
        assert all(len(path) == video.shape[1] + new.shape[1] for path in clips.cameras)
        self.windows.add(4 * (extension.new_latents + extension.condition_latents - 1) + 1)
        return np.concatenate([video, new], axis=1)


def test_every_clip_is_made_in_the_whole_window_and_adds_as_many_frames(truth, tmp_path):
    settings = settings_of(tmp_path)
    shape = ClipShape(13, 32, 48)
    plan = Plan(shape, 5, 4)  # clips that could add 8 frames, and add 4
    first = truth.video[None, :13]
    videos = {}
    for name in ("last-5", "last-9", "last-13", "retrieved-2", "retrieved-2-truth"):
        pipeline, arm = _Recorder(), fitted_arm(parse_arm(name), 2, shape, 4)
        found = explored(pipeline, settings, plan, arm, [truth], first, lambda: 0)
        videos[name] = found.videos
        assert found.videos.shape[1] == plan.frames == 29
        assert found.kept
        assert pipeline.windows == {25 if name == "last-13" else 13}
        np.testing.assert_array_equal(found.videos[0, 13::4, 0, 0, 0], [1, 2, 3, 4])
        last = pipeline.asked[-1]
        path, (extended,) = truth.take.world.cameras, last.cameras
        kept = slice(0, plan.frames)
        np.testing.assert_array_equal(extended.world_from_camera[kept], path.world_from_camera[kept])
        assert [len(set(one.seeds)) for one in pipeline.asked] == [1] * 4
        assert len({one.seeds[0] for one in pipeline.asked}) == 4
        if name.startswith("retrieved"):
            (indices,) = found.retrieved[-1]
            shown = truth.video if name.endswith("truth") else found.videos[0]
            np.testing.assert_array_equal(last.retrieved.video[0], shown[indices])
            poses = last.retrieved.cameras[0].world_from_camera
            np.testing.assert_array_equal(poses, path.world_from_camera[indices])
        else:
            assert last.retrieved is None
    np.testing.assert_array_equal(videos["last-5"], videos["retrieved-2"])


def test_a_batch_with_a_clip_that_diverges_is_made_one_by_one():
    def make(places):
        if 1 in places:
            raise ClipError("not_finite", "no numbers")
        return [(place, {}) for place in places]

    assert _safely(make, [0, 1, 2, 2]) == [(0, {}), None, (2, {}), (2, {})]

    def broken(places):
        raise ClipError("truncated", "another fault")

    with pytest.raises(ClipError, match="another"):
        _safely(broken, [0])


# ------------------------------------------------------------------------------------- tables and refusals


def record(level, failed=False):
    if failed:
        return {"failed": "not_finite"}
    clip = dict.fromkeys(CURVES, level) | {"seam": 2.0 * level, "inside": level}
    return {
        "clips": [clip | {"psnr": 50.0, "seam": None}, clip, clip | {"psnr": level + 2.0}],
        "returns": None,
    }


def test_arms_are_compared_world_by_world():
    takes = [
        {"index": i, "seed": i, "route": "loop" if i % 2 else "detour", "layout": "town"}
        | {"shares": [dict.fromkeys(REGIONS, 0.25)] * 3}
        for i in range(4)
    ]
    levels = [20.0, 22.0, 30.0, 25.0]
    rows = {"last-13": [record(level) for level in levels]}
    rows["retrieved-4"] = [record(level + 1.0) for level in levels[:3]] + [record(0, failed=True)]
    rows |= {"reconstruction": [record(40.0)] * 4, "truth": [{"clips": [{"seam": None, "inside": 1.0}] + [
        {"seam": 1.0, "inside": 1.0}] * 2, "returns": {"difference": 1.0}}] * 4}  # fmt: skip
    found = summarised(takes, rows, ["last-13", "retrieved-4"])
    gain = found["paired"]["retrieved-4"]["psnr"]
    assert gain["mean"] == pytest.approx(1.0)
    assert gain["low"] == pytest.approx(1.0)  # much narrower than either interval
    assert gain["failed"] == 1
    assert found["failed"] == {"last-13": 0, "retrieved-4": 1}
    assert found["measures"]["last-13"]["psnr"]["mean"] == pytest.approx(np.mean(levels) + 1.0)
    assert found["measures"]["last-13"]["last/psnr"]["mean"] == pytest.approx(np.mean(levels) + 2.0)
    assert found["measures"]["last-13"]["seam_over_inside"]["mean"] == pytest.approx(2.0)
    assert found["curves"]["last-13"]["psnr"][0]["mean"] == 50.0
    by_route = found["paired_by_route"]
    assert by_route["loop"]["retrieved-4"]["psnr_seen"]["clips"] == 1
    assert by_route["detour"]["retrieved-4"]["psnr_seen"]["mean"] == pytest.approx(1.0)
    assert found["by_route"]["loop"]["last-13"]["psnr_seen"]["mean"] == pytest.approx(23.5)
    assert found["per_scene"][3]["values"]["last-13/psnr"] == pytest.approx(26.0)
    assert "retrieved-4/psnr" not in found["per_scene"][3]["values"]
    assert found["per_scene"][0]["values"]["baseline/truth/return_difference"] == 1.0


def test_takes_that_are_called_alike_and_are_not_do_not_compare(tmp_path):
    paths = []
    for number, difference in enumerate((4.0, 4.01, 9.0)):
        values = {"last-13/psnr": 20.0 + number, "baseline/truth/return_difference": difference}
        scene = {"index": 0, "seed": 1, "route": "loop", "layout": "town", "values": values}
        result = {"kind": "explorations", "format": [2, 1], "clip": {}, "per_scene": [scene]}
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(result))
    found, _ = compare_results(CompareSettings(paths[0], paths[1]))
    assert found["differences"]["last-13/psnr"]["mean"] == pytest.approx(1.0)
    with pytest.raises(UserError, match="not the same takes"):
        compare_results(CompareSettings(paths[0], paths[2]))


def test_cameras_count_where_the_true_render_gets_some():
    take = {"index": 0, "seed": 0, "route": "loop", "layout": "town"}
    take |= {"shares": [dict.fromkeys(REGIONS, 0.25)] * 3}
    clip = dict.fromkeys(CURVES, 20.0) | {"seam": 1.0, "inside": 1.0}
    errors = [{"rot_err_aligned_deg": error} for error in (1.0, 2.0, 90.0)]
    looked = [error | {"pose": error | {"reason": ""}} for error in errors]
    true = [clip | one for one in looked[:2]] + [clip | {"pose": {"reason": "no_pair"}}]
    arm = [clip | one for one in looked]
    rows = {name: [{"clips": clips, "returns": None}] for name, clips in (("truth", true), ("last-13", arm))}
    found = summarised([take], rows, ["last-13"])
    assert found["measures"]["last-13"]["rot_err_aligned_deg"]["mean"] == 2.0  # after the first clip
    assert found["curves"]["last-13"]["rot_err_aligned_deg"][2] is None
    assert found["cameras"]["last-13"]["clips"] == 2
    assert found["true_clips_looked_at"] == 3
    assert found["cameras"]["last-13"]["rot_err_aligned_deg"]["median"] == 1.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arms", "last-6"], "4k [+] 1"),
        (["--arms", "last-5", "last-5"], "each once"),
        (["--arms", "last-5+noise1"], "condition_noise"),
        (["--first-seed", "5"], "training seeds"),
        (["--new-frames", "6"], "multiple of 4"),
        (["--clips", "1"], "at least 2"),
        (["--clips", "3", "--routes", "loop"], "needs 337"),
        (["--clips", "3"], "too short to come back"),
        (["--clips", "6", "--arms", "retrieved-2"], "without retrieved"),
        (["--clips", "6", "--arms", "last-13"], "at most 9"),
        (["--new-frames", "12"], "at most 8"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(options, words, nano, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["explorations", "--checkpoint", str(nano), "--out", str(out), *options]
    assert main(command) == 1
    assert not out.exists()
    assert re.search(words, capsys.readouterr().err)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


# ------------------------------------------------------------------------------------------------ a whole run


@pytest.mark.slow
def test_a_whole_run_goes_on_where_it_stopped_and_compares(nano, tmp_path):
    described = json.loads((nano / "model.json").read_text())
    described["sampling"]["retrieved"] = 2
    folder = tmp_path / "remembers"
    folder.mkdir()
    for file in nano.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.json").write_text(json.dumps(described))
    arms = ("last-5", "retrieved-2")
    settings = settings_of(tmp_path / "out", checkpoint=str(folder), count=3, arms=arms)
    found = evaluate_explorations(settings, say=lambda line: None)
    assert found["measured_now"] == 3
    assert {(tmp_path / "out" / name).exists() for name in found["files"]} == {True}
    for arm in arms:
        running = found["running"][arm]
        assert running["compiled_after_second"] == 0
        assert running["held_after_second"] == 0
        assert running["given_frames_untouched"]
        assert len(found["curves"][arm]["psnr_seen"]) == CLIPS
        # All arms go on from one first clip.
        assert found["curves"][arm]["psnr"][0] == found["curves"][arms[0]]["psnr"][0]
    # One world of one arm is gone: it alone is made again, with another size of batch, to the same result.
    (tmp_path / "out" / "retrieved-2" / "clips" / "scene_001.json").unlink()
    again = evaluate_explorations(dataclasses.replace(settings, batch_size=1), say=lambda line: None)
    assert again["measured_now"] == 1
    assert again["measures"]["last-5"] == found["measures"]["last-5"]
    one, other = (run["measures"]["retrieved-2"]["psnr"]["mean"] for run in (found, again))
    assert one == pytest.approx(other, abs=0.05)
    out = tmp_path / "out"
    strips = tmp_path / "strips.png"
    compared, page = compare_results(CompareSettings(out, out, ("last-5", "retrieved-2"), strips))
    assert strips.exists()
    difference = compared["differences"]["last-5 -> retrieved-2/psnr_seen"]
    assert difference["mean"] == pytest.approx(again["paired"]["retrieved-2"]["psnr_seen"]["mean"])
    assert "psnr_seen" in page
    # Another arm is added to what is there.
    more = evaluate_explorations(
        dataclasses.replace(settings, arms=("last-5", "last-5-first"), keep=True, count=1),
        say=lambda line: None,
    )
    assert (out / "last-5-first" / "clips" / "scene_000.mp4").exists()
    assert more["worlds"]["count"] == 1


@pytest.mark.slow
def test_what_is_made_before_the_device_runs_out_of_memory_is_kept(nano, tmp_path, monkeypatch):
    def short_of_memory(pipeline, settings, plan, arm, *rest):
        if arm.name == "last-5+noise0.1":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return explored(pipeline, settings, plan, arm, *rest)

    monkeypatch.setattr(running, "explored", short_of_memory)
    arms = ("last-5", "last-5+noise0.1")
    settings = settings_of(tmp_path, checkpoint=str(nano), count=4, arms=arms)
    with pytest.raises(UserError, match="--batch-size 2"):
        evaluate_explorations(settings, say=lambda line: None)
    kept = {path.parent.parent.name for path in tmp_path.glob("*/clips/scene_001.json")}
    assert kept == {"truth", "reconstruction", "last-5"}
