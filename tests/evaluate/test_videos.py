"""``evaluate videos``: what is measured, what is counted as failed, and going on where it was left."""

import inspect
import json
import re
import shutil
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from camctrl_jax.camera import Cameras, preset, rotations, save_cameras
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels
from camctrl_jax.camera.reading import Reading, read_path
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.estimators import EstimatorFailed, Fingerprint, MotionMasks, SfmResult, checks
from camctrl_jax.estimators.checks import DOUBTS
from camctrl_jax.estimators.imported import ImportedPoses
from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.programs import ProgramSfm
from camctrl_jax.evaluate.videos import Estimators, VideosSettings, evaluate_videos, markdown, summarise
from camctrl_jax.evaluate.videos_options import made_estimators
from camctrl_jax.video.encoding import write_mp4

pytest.importorskip("av")
PATH = preset("orbit_left", 9)


@dataclass
class Known:
    """Estimators whose answers are known; ``calls`` counts what is really run."""

    calls: int = 0
    dies_at: int = -1
    sfm_error: Exception | None = None
    lens: object = None
    scale: float = 1.0
    noise: float = 0.0
    still: bool = False
    masks_error: Exception | None = None
    drift: bool = False
    jump: bool = False

    def fingerprint(self):
        return Fingerprint("known", "1", (("scale", self.scale), ("drift", self.drift)))

    def segment(self, frames, fps):
        if self.masks_error is not None:
            raise self.masks_error
        moving = np.zeros(frames.shape[:3], bool)
        moving[:, : 0 if self.still else 4] = True
        return MotionMasks(moving)

    def flow(self, a, b):
        return np.broadcast_to(np.float32((3.0, 4.0)), (*a.shape[:3], 2))

    def embed(self, frames):
        angles = np.radians(10.0 * np.arange(len(frames)) * self.drift)
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        self.calls, self.lens = self.calls + 1, intrinsics
        if self.sfm_error is not None:
            raise self.sfm_error
        chosen = np.unique(np.linspace(0, len(PATH) - 1, len(frames)).round().astype(int))
        poses = PATH[chosen].scaled(self.scale).world_from_camera.copy()
        poses[:, :3, 3] += self.noise * np.random.default_rng(0).normal(size=(len(poses), 3))
        poses[-1, :3, 3] += 100.0 * self.jump
        poses[1, :3, :3] = (
            poses[1, :3, :3] @ rotations.about(np.array((0.0, 1.0, 0.0)), np.array([self.noise]))[0]
        )
        return SfmResult.of_cameras(Cameras(poses, PATH.intrinsics[chosen]))


def estimators(known=None):
    known = known or Known()
    return Estimators(known, known, known, known)


def clip(path, frames=9, size=(32, 48), seed=0):
    video = np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, video, 12.0)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("camctrl_jax.evaluate.videos.running.write_figures", lambda *arguments: [])


@pytest.fixture
def settings(tmp_path):
    for name in ("a", "b"):
        clip(tmp_path / f"generated/{name}.mp4")
        clip(tmp_path / f"reference/{name}.mp4", seed=int(name == "b"))
        save_cameras(PATH, tmp_path / f"cameras/{name}.txt")
    return VideosSettings(
        tmp_path / "out", tmp_path / "generated", tmp_path / "cameras", tmp_path / "reference", pose_frames=5
    )


def run(settings, known=None):
    return evaluate_videos(settings, estimators(known), say=lambda line: None)


def test_measures_have_their_known_values(settings):
    results = run(settings, Known(scale=0.25))
    found, row = results["summary"], results["clips"]["a"]
    assert (found["clips"], found["failed"]) == (2, 0)
    assert row["trans_err"] == pytest.approx(0.0, abs=1e-9)
    assert row["scale"] == pytest.approx(4.0)
    assert row["motion_px"] == pytest.approx(5.0)
    assert row["motion_diagonals"] == pytest.approx(5.0 / np.hypot(32, 48))
    assert row["moving_share"] == pytest.approx(4 / 32)
    assert row["appearance"] == pytest.approx(1.0)
    assert row["psnr_db"] == 100.0  # the same file
    assert results["clips"]["b"]["psnr_db"] < 20.0
    assert row["gradient_energy_to_reference"] == pytest.approx(1.0)
    assert found["geometric_consistency"]["mean"] == 1.0
    assert found["geometric_consistency"]["low"] < 0.5  # of two clips, that says little
    assert "Geometric consistency | 1 |" in markdown(results)


def test_every_frame_keeps_its_errors_and_their_means_are_the_clips(settings):
    row = run(settings, Known(scale=0.25, noise=0.05))["clips"]["b"]
    of_frames = row["per_frame"]
    assert of_frames["pose_frames"] == [0, 2, 4, 6, 8]
    for name in ("trans_err_aligned_share_of_path", "rot_err_aligned_deg"):
        assert len(of_frames[name]) == 5
        assert np.mean(of_frames[name]) == pytest.approx(row[name], rel=1e-4)
        assert row[name] > 1e-3
    for name in ("trans_err_first_share_of_path", "rot_err_first_deg"):
        assert of_frames[name][0] == pytest.approx(0.0, abs=1e-6)
        assert np.mean(of_frames[name][1:]) == pytest.approx(row[name], rel=1e-4)
    assert of_frames["seconds"] == pytest.approx(np.arange(9) / 12.0, abs=1e-3)
    assert (len(of_frames["psnr_db"]), len(of_frames["appearance_to_first"])) == (9, 9)
    assert 10 ** (-row["psnr_db"] / 10) == pytest.approx(
        np.mean([10 ** (-value / 10) for value in of_frames["psnr_db"]]), rel=1e-4
    )
    assert row["fps"] == pytest.approx(12.0, rel=0.01)


def test_nothing_that_moves_is_a_finding_and_masks_that_fail_are_not(settings):
    results = run(settings, Known(still=True))
    row, found = results["clips"]["a"], results["summary"]
    assert (row["motion_px"], row["moving_share"], row["nothing_moves"]) == (None, 0.0, True)
    assert (found["nothing_moves"], found["moving_share"]["clips"]) == (2, 2)
    assert "Nothing moves in 2." in markdown(results)
    results = run(settings, Known(scale=2.0, masks_error=EstimatorFailed("crashed", "gone.")))
    assert results["summary"]["nothing_moves"] == 0
    assert results["summary"]["measured_in_part"] == {"masks": 2}
    assert "motion_px" not in results["clips"]["a"]


def test_means_of_motion_tell_clips_without_motion_from_clips_that_were_not_measured(settings):
    rows = {
        "moving": {"failures": {}, "motion_px": 2.0, "nothing_moves": False},
        "still": {"failures": {}, "motion_px": None, "nothing_moves": True},
        "lost": {"failures": {"masks": "crashed: gone"}},
        "failed": {"failed": "truncated", "message": ""},
    }
    known = {"frames": 2, "fps": 12.0, "size": [2, 2], "remarks": []}
    found = summarise({name: known | row if "failures" in row else row for name, row in rows.items()})
    motion = found["motion_px"]
    assert (motion["mean"], motion["clips"], motion["failed"], motion["nothing_moves"]) == (2.0, 1, 2, 1)


def test_doubts_are_named_and_counted(settings):
    results = run(settings, Known(jump=True))
    assert results["clips"]["a"]["doubts"] == ["jump"]
    found = results["summary"]
    assert found["doubts"] == {"jump": 2}
    assert (found["geometric_consistency"]["mean"], found["geometric_consistency_strict"]["mean"]) == (1, 0)
    assert results["settings"]["doubts"]["jump"] == 5.0
    page = markdown(results)
    assert "jump 2" in page
    assert all(f"{doubt}," in page or f"{doubt} (" in page for doubt in DOUBTS)
    given = re.findall(r'append\("(\w+)"\)', inspect.getsource(checks))
    assert {*given, "no_model"} == {*DOUBTS, "reprojection"}  # which needs a limit to be set


def test_clips_at_a_time_change_nothing(settings):
    for name in "cdef":
        clip(settings.generated / f"{name}.mp4", seed=ord(name))
        save_cameras(PATH, settings.cameras / f"{name}.txt")
    (settings.cameras / "e.txt").unlink()
    one = run(settings)
    several = run(replace(settings, jobs=4, out=settings.out.with_name("several")))
    assert list(several["clips"]) == list(one["clips"]) == list("abcdef")
    assert several == one


def test_a_long_video_is_an_exploration_of_clips(settings):
    results = run(replace(settings, clip_frames=4), Known(drift=True))
    row = results["clips"]["a"]
    angles = np.radians(10.0 * np.arange(9))
    assert row["exploration_last_to_first"] == pytest.approx(np.cos(angles[8]), abs=1e-6)
    # Frames 0 to 4, and 5 to 8: the first clip has what is left over, and no short one is last.
    assert row["exploration"]["clip_to_first"] == pytest.approx([1.0, np.cos(np.radians(45.0))], abs=1e-6)
    assert results["summary"]["exploration_last_to_first"]["clips"] == 2
    assert "exploration" not in run(replace(settings, clip_frames=5))["clips"]["a"]


def test_imported_poses_of_all_frames_serve_the_frames_that_are_looked_at(settings, tmp_path):
    for name, factor in (("a", 1.0), ("b", 3.0)):
        save_cameras(PATH.scaled(factor), tmp_path / f"found/{name}.txt")
    poses = ImportedPoses(tmp_path / "found/{clip}.txt")
    known = Known()
    results = evaluate_videos(settings, Estimators(known, known, poses, known), say=lambda line: None)
    assert [results["clips"][name]["frames"] for name in "ab"] == [9, 9]
    assert results["clips"]["a"]["scale"] == pytest.approx(1.0, rel=1e-4)
    assert results["clips"]["b"]["scale"] == pytest.approx(1.0 / 3.0, rel=1e-4)
    assert len(results["clips"]["b"]["per_frame"]["rot_err_aligned_deg"]) == 5
    (tmp_path / "found/a.txt").unlink()
    again = evaluate_videos(settings, Estimators(known, known, poses, known), say=lambda line: None)
    assert "no_result" in again["clips"]["a"]["failures"]["poses"]
    assert "poses" not in again["clips"]["b"]["failures"]


def test_the_lens_that_was_asked_for_is_known_unless_it_is_to_be_estimated(settings):
    known = Known()
    row = run(settings, known)["clips"]["a"]
    np.testing.assert_allclose(known.lens, PATH.intrinsics[[0, 2, 4, 6, 8]])
    assert "focal_error" not in row
    row = run(replace(settings, known_lens=False), known)["clips"]["a"]
    assert known.lens is None
    assert row["focal_error"] == pytest.approx(0.0, abs=1e-6)


def test_a_lens_that_stands_in_for_a_missing_one_is_not_taken_as_true(settings):
    (settings.cameras / "a.txt").unlink()
    save_cameras(PATH, settings.cameras / "a.txt", "kitti")  # holds poses alone
    (settings.cameras / "b.txt").unlink()
    known = Known()
    results = run(settings, known)
    assert known.lens is None
    row = results["clips"]["a"]
    assert row["lens"] == "estimated"
    assert "focal_error" not in row  # of nothing
    assert row["trans_err"] == pytest.approx(0.0, abs=1e-4)
    assert "1 of the clips: the pose file holds no lens: it is estimated." in markdown(results)


def test_motion_is_in_the_videos_own_pixels_however_small_estimators_see_it(settings):
    clip(settings.generated / "a.mp4", size=(128, 192))
    row = run(replace(settings, longest_side=96, reference=None))["clips"]["a"]
    assert row["size"] == [128, 192]
    assert row["motion_px"] == pytest.approx(10.0)  # 5 pixels of half the size
    assert row["motion_diagonals"] == pytest.approx(10.0 / np.hypot(128, 192))


def test_clips_that_fail_are_counted_with_their_reason_and_the_run_ends(settings):
    data = (settings.generated / "a.mp4").read_bytes()
    (settings.generated / "broken.mp4").write_bytes(data[: len(data) // 2])
    save_cameras(PATH, settings.cameras / "broken.txt")
    clip(settings.generated / "no_cameras.mp4")
    clip(settings.generated / "other_count.mp4", frames=5)
    save_cameras(PATH, settings.cameras / "other_count.txt")
    save_cameras(PATH, settings.cameras / "no_video.txt")
    clip(settings.generated / "bad_poses.mp4")
    (settings.cameras / "bad_poses.txt").write_text("1 2 3\n")
    results = run(settings)
    reasons = {name: row["failed"] for name, row in results["clips"].items() if "failed" in row}
    assert reasons == {
        "broken": "truncated",
        "no_cameras": "missing_cameras",
        "other_count": "frame_count",
        "no_video": "missing_video",
        "bad_poses": "unusable",
    }
    assert results["summary"]["failed"] == 5
    assert "5 frames and" in results["failed"]["other_count"]
    # Means are over the two that were measured; all seven count for geometric consistency.
    assert results["summary"]["trans_err"]["clips"] == 2
    assert results["summary"]["trans_err"]["failed"] == 5
    assert results["summary"]["geometric_consistency"]["mean"] == pytest.approx(2 / 7)
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize("reason", ["timeout", "crashed"])
def test_an_estimator_that_hangs_or_dies_costs_its_part_alone(settings, reason):
    results = run(settings, Known(sfm_error=EstimatorFailed(reason, "the program gave up.")))
    row = results["clips"]["a"]
    assert row["failures"] == {"poses": f"{reason}: the program gave up."}
    assert row["registered"] is False
    assert row["motion_px"] == pytest.approx(5.0)
    assert results["summary"]["measured_in_part"] == {"poses": 2}
    assert results["summary"]["geometric_consistency"]["mean"] == 0.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("import time; time.sleep(100)", "timeout"), ("import os; os.abort()", "crashed")],
)
def test_a_program_that_really_hangs_or_dies_ends_with_its_clip(settings, text, reason):
    place = Installation(sys.executable, time_limit=0.5 if reason == "timeout" else 60.0)
    broken = ProgramSfm(Program("fake", (("{python}", "-c", text),), place))
    known = Known()
    results = evaluate_videos(
        replace(settings, jobs=2), Estimators(known, known, broken, known), say=lambda line: None
    )
    assert results["summary"]["poses_by_reason"] == {reason: 2}
    assert results["summary"]["geometric_consistency"]["mean"] == 0.0
    assert results["summary"]["motion_px"]["clips"] == 2
    assert f"a: poses: {reason}: fake" in markdown(results)


def test_a_part_that_failed_for_want_of_time_is_tried_again(settings):
    run(settings, Known(sfm_error=EstimatorFailed("timeout", "the program gave up.")))
    again = Known()
    assert run(settings, again)["summary"]["measured_in_part"] == {}
    assert again.calls == 2


def test_a_fault_of_an_estimator_costs_its_part_alone(settings):
    row = run(settings, Known(sfm_error=np.linalg.LinAlgError("Singular matrix")))["clips"]["a"]
    assert row["failures"] == {"poses": "fault: LinAlgError: Singular matrix"}
    assert row["appearance"] == pytest.approx(1.0)


def test_what_is_done_is_not_done_again_unless_it_changed(settings):
    known = Known()
    first = run(settings, known)
    assert known.calls == 2
    again = run(settings, known)
    assert known.calls == 2
    assert again["summary"] == first["summary"]
    time.sleep(0.01)
    clip(settings.generated / "b.mp4", seed=3)
    run(settings, known)
    assert known.calls == 3
    run(settings, other := Known(scale=2.0))  # another estimator
    assert other.calls == 2
    (settings.out / "clips/a.json").write_text("{")  # damaged
    run(settings, other)
    assert other.calls == 3


def test_what_cannot_be_compared_with_its_reference_is_said(settings):
    (settings.reference / "a.mp4").unlink()
    clip(settings.reference / "b.mp4", size=(48, 64))
    results = run(settings)
    assert "missing_reference" in results["clips"]["a"]["failures"]["reference"]
    assert "other_shape" in results["clips"]["b"]["failures"]["reference"]


def test_folders_that_are_not_there_or_ambiguous_are_named(settings, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        replace(settings, cameras=tmp_path / "none")
    clip(settings.generated / "a.mkv")
    with pytest.raises(UserError, match="have one name"):
        run(settings)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no videos"):
        run(replace(settings, generated=empty))
    assert issubclass(EstimatorFailed, ClipError)


@pytest.mark.slow
def test_real_pictures_follow_their_own_cameras_and_not_those_of_another_clip(test_data, tmp_path):
    pytest.importorskip("pycolmap")
    pytest.importorskip("cv2")
    own = read_path(test_data("open3d_rgbd/trajectory.log"), Reading()).pose_file.cameras
    lens = intrinsics_from_pixels((525.0, 525.0, 320.0, 240.0), 480, 640)
    other = read_path(test_data("re10k_cameractrl/pose_files/0bf152ef84195293.txt"), Reading())
    save_cameras(own.with_intrinsics(lens), tmp_path / "cameras/own.txt")
    save_cameras(other.pose_file.cameras[:5].with_intrinsics(lens), tmp_path / "cameras/other.txt")
    for name in ("own", "other"):
        shutil.copytree(test_data("open3d_rgbd/color"), tmp_path / "generated" / name)
    settings = VideosSettings(tmp_path / "out", tmp_path / "generated", tmp_path / "cameras", jobs=2)
    clips = evaluate_videos(settings, made_estimators({}), say=lambda line: None)["clips"]
    assert [clips[name]["registered"] for name in ("own", "other")] == [True, True]
    assert clips["own"]["trans_err_aligned_share_of_path"] < 0.02
    assert clips["own"]["rot_err_aligned_deg"] < 0.2
    assert clips["other"]["trans_err_aligned_share_of_path"] > 0.1
