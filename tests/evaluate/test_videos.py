"""``evaluate videos``: what is measured, what is counted as failed, and going on where it was left."""

import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.estimators import EstimatorFailed, Fingerprint, MotionMasks, SfmResult
from camctrl_jax.evaluate.videos import Estimators, VideosSettings, evaluate_videos, markdown
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

    def fingerprint(self):
        return Fingerprint("known", "1", (("scale", self.scale),))

    def segment(self, frames, fps):
        moving = np.zeros(frames.shape[:3], bool)
        moving[:, :4] = True
        return MotionMasks(moving)

    def flow(self, a, b):
        return np.broadcast_to(np.float32((3.0, 4.0)), (*a.shape[:3], 2))

    def embed(self, frames):
        return np.tile(np.float32((1.0, 0.0)), (len(frames), 1))

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        self.calls, self.lens = self.calls + 1, intrinsics
        if self.sfm_error is not None:
            raise self.sfm_error
        chosen = np.unique(np.linspace(0, len(PATH) - 1, len(frames)).round().astype(int))
        return SfmResult.of_cameras(PATH[chosen].scaled(self.scale))


def estimators(known=None):
    known = known or Known()
    return Estimators(known, known, known, known)


def clip(path, frames=9, size=(32, 48), seed=0):
    video = np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, video, 12.0)


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
    assert "Geometric consistency | 1 |" in markdown(results)


def test_the_lens_that_was_asked_for_is_known_unless_it_is_to_be_estimated(settings):
    known = Known()
    row = run(settings, known)["clips"]["a"]
    np.testing.assert_allclose(known.lens, PATH.intrinsics[[0, 2, 4, 6, 8]])
    assert "focal_error" not in row
    row = run(replace(settings, known_lens=False), known)["clips"]["a"]
    assert known.lens is None
    assert row["focal_error"] == pytest.approx(0.0, abs=1e-6)


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
