"""Figures of ``evaluate videos``: what they show, and results without Matplotlib."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.errors import ClipError
from camctrl_jax.estimators import EstimatorFailed, Fingerprint, MotionMasks, SfmResult
from camctrl_jax.evaluate.videos import Estimators, VideosSettings, evaluate_videos
from camctrl_jax.evaluate.videos.figures import best_and_worst, strip_of
from camctrl_jax.evaluate.videos.timelines import over_time
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.encoding import write_mp4

pytest.importorskip("av")
PATH = preset("orbit_left", 5)
TRANS = "trans_err_aligned_share_of_path"


class Known:
    """A path that is off by as much as the clip is bright; of a dark clip there is none."""

    def fingerprint(self):
        return Fingerprint("known", "1")

    def segment(self, frames, fps):
        return MotionMasks(np.zeros(frames.shape[:3], bool))

    def flow(self, a, b):
        return np.zeros((*a.shape[:3], 2), np.float32)

    def embed(self, frames):
        return np.ones((len(frames), 1), np.float32)

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        light = float(frames.mean()) / 255.0
        if light < 0.1:
            raise EstimatorFailed("no_model", "too dark to see.")
        poses = PATH.world_from_camera.copy()
        poses[2, :3, 3] += light
        return SfmResult.of_cameras(replace(PATH, world_from_camera=poses))


@pytest.fixture
def settings(tmp_path):
    for name, light in (("bright", 240), ("dim", 60), ("dark", 0), ("short", 90)):
        (tmp_path / "generated").mkdir(exist_ok=True)
        frames = 3 if name == "short" else 5
        write_mp4(tmp_path / f"generated/{name}.mp4", np.full((frames, 32, 48, 3), light, np.uint8), 12.0)
        save_cameras(PATH, tmp_path / f"cameras/{name}.txt")
    return VideosSettings(tmp_path / "out", tmp_path / "generated", tmp_path / "cameras", pose_frames=5)


def run(settings, said=None):
    known = Known()
    estimators = Estimators(known, known, known, known)
    return evaluate_videos(settings, estimators, say=(said if said is not None else []).append)


def test_figures_are_drawn_of_good_and_of_failed_clips(settings, monkeypatch):
    pytest.importorskip("matplotlib")
    results = run(replace(settings, shown=1))
    names = ["error_over_time.png", "best.png", "worst.png"]
    assert results["files"] == ["results.json", "results.md", *names]
    for name in names:
        (frame,) = read_frames(settings.out / name)
        assert frame.rgb().std() > 5.0  # something is drawn
    curve = results["over_time"][TRANS]
    assert curve["clips"] == [2] * 5
    assert np.argmax(curve["mean"]) == 2
    monkeypatch.setattr("camctrl_jax.evaluate.videos.figures._over_time", lambda *arguments: None)
    none = run(replace(settings, shown=0))
    assert none["files"] == ["results.json", "results.md", "error_over_time.png"]


def test_a_broken_clip_is_shown_as_far_as_it_goes(settings):
    path = settings.generated / "dim.mp4"
    whole = strip_of(path, 12.0)
    # A video that keeps its index at its front can be read up to where it is cut.
    write_mp4(path, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8), 12.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipError):
        list(read_frames(path))
    cut = strip_of(path, 12.0)
    assert cut is not None
    assert cut.shape[1] > 2 * 64
    assert whole.shape == (32, 5 * 48 + 4 * 4, 3)
    assert strip_of(None, 12.0) is None


def test_without_matplotlib_there_are_results_and_a_message(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = []
    results = run(settings, said)
    assert results["files"] == ["results.json", "results.md"]
    assert "camctrl_jax[eval]" in results["no_figures"]
    assert any("no figures: matplotlib" in line for line in said)
    assert (settings.out / "results.md").exists()


def test_clips_without_a_path_are_the_worst_and_say_why():
    known = {"failures": {}, "doubts": [], "rot_err_aligned_deg": 1.0, "scale_aligned": 1.0}
    rows = {f"clip_{index}": known | {TRANS: 0.1 * index} for index in range(5)}
    rows["lost"] = {"failures": {"poses": "no_model: nothing to see"}}
    rows["broken"] = {"failed": "truncated", "message": "cut off"}
    (_, _, best), (_, title, worst) = best_and_worst(rows, 2)
    assert [shown.name for shown in best] == ["clip_0", "clip_1"]
    assert [shown.name for shown in worst] == ["lost", "broken", "clip_4", "clip_3"]
    assert [shown.text for shown in worst[:2]] == [
        "no path: no_model: nothing to see",
        "failed, truncated: cut off",
    ]
    assert title.startswith("2 clips without a path")
    (_, _, best), (_, title, worst) = best_and_worst({"one": known | {TRANS: 0.1}, **rows}, 1)
    assert "1 more are not shown" in title
    (_, _, best), (_, _, worst) = best_and_worst({"one": known | {TRANS: 0.1}}, 3)
    assert ([shown.name for shown in best], worst) == (["one"], [])


def test_clips_of_several_rates_are_read_at_common_times():
    def row(seconds, values):
        return {"per_frame": {"seconds": seconds, "psnr_db": values}}

    slow = row([0.0, 0.5, 1.0], [30.0, 20.0, 10.0])
    fast = row([0.0, 0.25, 0.5, 0.75, 1.0], [10.0, 10.0, 10.0, 10.0, 10.0])
    found = over_time({"slow": slow, "fast": fast})["psnr_db"]
    assert found["seconds"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert found["mean"] == pytest.approx([20.0, 17.5, 15.0, 12.5, 10.0])
    # Two of three clips end at 1 s: beyond it there is no mean, since it would be of another set of clips.
    long = row([0.0, 1.0, 2.0], [10.0, 10.0, 10.0])
    found = over_time({"slow": slow, "fast": fast, "long": long})["psnr_db"]
    assert (found["seconds"][-1], found["clips"][-1]) == (1.0, 3)
    assert over_time({"failed": {"failed": "truncated", "message": ""}}) == {}
