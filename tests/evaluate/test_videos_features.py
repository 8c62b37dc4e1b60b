"""Frechet distance in ``evaluate videos``: its floor, equal numbers, what is kept, and when there is none."""

from dataclasses import dataclass

import numpy as np
import pytest

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators import EstimatorFailed, Fingerprint, MotionMasks, SfmResult
from camctrl_jax.evaluate import videos_options
from camctrl_jax.evaluate.videos import Estimators, VideosSettings, evaluate_videos, markdown
from camctrl_jax.evaluate.videos.features import FEW_CLIPS, frechet
from camctrl_jax.evaluate.videos.store import ClipFeatures
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance
from camctrl_jax.video.encoding import write_mp4

pytest.importorskip("av")
PATH = preset("orbit_left", 5)


class Plain:
    """Estimators that say nothing of interest."""

    def fingerprint(self):
        return Fingerprint("plain", "1")

    def segment(self, frames, fps):
        return MotionMasks(np.zeros(frames.shape[:3], bool))

    def flow(self, a, b):
        return np.zeros((*a.shape[:3], 2), np.float32)

    def embed(self, frames):
        return np.ones((len(frames), 1), np.float32)

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        return SfmResult.of_cameras(PATH[: len(frames)])


@dataclass
class MeanColour:
    """Features: the mean colour of the clip."""

    calls: int = 0
    least_frames: int = 4
    version: str = "1"
    error: Exception | None = None

    def fingerprint(self):
        return Fingerprint("mean colour", self.version)

    def embed_video(self, frames, fps):
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert (frames.dtype, frames.shape[1:]) == (np.uint8, (32, 48, 3))
        assert fps == pytest.approx(12.0)
        return frames.mean(axis=(0, 1, 2))


def clip(path, colour, frames=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, np.full((frames, 32, 48, 3), colour, np.uint8), 12.0)


@pytest.fixture
def settings(tmp_path):
    for index, name in enumerate("abcdef"):
        clip(tmp_path / f"generated/{name}.mp4", 60 + 10 * index)
        clip(tmp_path / f"reference/{name}.mp4", 80 + 10 * index)
        save_cameras(PATH, tmp_path / f"cameras/{name}.txt")
    folders = (tmp_path / name for name in ("out", "generated", "cameras", "reference"))
    return VideosSettings(*folders, longest_side=64, pose_frames=5)


def run(settings, embedder, said=None):
    plain = Plain()
    estimators = Estimators(plain, plain, plain, plain, embedder)
    return evaluate_videos(settings, estimators, say=(said if said is not None else []).append)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("camctrl_jax.evaluate.videos.running.write_figures", lambda *arguments: [])


def test_the_distance_is_that_of_the_features_and_is_kept(settings):
    embedder = MeanColour()
    results = run(settings, embedder)
    found = results["frechet"]
    assert embedder.calls == 12
    # The same greys, 20 levels apart in each of three channels: equal covariances, so that the means alone
    # tell; the codec rounds.
    assert found["distance"] == pytest.approx(3 * 20.0**2, rel=0.05)
    assert (found["clips"], found["without"], found["frames"]) == (6, 0, [5, 5])
    assert found["halves"]["clips"] == 3
    assert str(FEW_CLIPS) in found["warnings"][0]
    page = markdown(results)
    assert "floor: reference to reference, other clips | 3 |" in page
    assert run(settings, embedder)["frechet"] == found
    assert embedder.calls == 12
    run(settings, other := MeanColour(version="2"))
    assert other.calls == 12
    (settings.out / "features/a.npz").write_bytes(b"damaged")
    run(settings, other)
    assert other.calls == 14


def test_the_floor_has_a_distance_of_equally_many_clips_beside_it():
    draw = np.random.default_rng(0).normal
    clips = {
        f"{index:03d}": ClipFeatures(draw(size=8) + 1.0, draw(size=8), 16, 12.0, True) for index in range(200)
    }
    found = frechet(clips, 201, MeanColour())
    made = np.stack([each.generated for each in clips.values()])
    true = np.stack([each.reference for each in clips.values()])
    textbook = frechet_distance(FeatureStatistics.of(made), FeatureStatistics.of(true))
    assert found["distance"] == pytest.approx(textbook)
    halves = found["halves"]
    # Two draws of one distribution: all of the floor is the bias of 100 clips, and the half distance has it.
    assert 0.0 < halves["floor"]["mean"] < 0.1 * textbook
    assert halves["generated_to_reference"]["mean"] == pytest.approx(
        textbook + 0.5 * halves["floor"]["mean"], rel=0.05
    )
    assert found["without"] == 1
    assert found["warnings"] == []
    shuffled = dict(reversed(clips.items()))
    assert frechet(shuffled, 201, MeanColour()) == found


def test_a_clip_without_features_is_counted_with_its_reason(settings):
    clip(settings.reference / "a.mp4", 80, frames=9)
    clip(settings.generated / "b.mp4", 80, frames=3)
    save_cameras(PATH[:3], settings.cameras / "b.txt")
    clip(settings.reference / "b.mp4", 80, frames=3)
    (settings.reference / "c.mp4").unlink()
    results = run(settings, MeanColour())
    failures = {name: row["failures"].get("video_features", "") for name, row in results["clips"].items()}
    assert failures["a"].startswith("other_length: ")
    assert failures["b"].startswith("too_short: ")
    assert failures["c"].startswith("missing_reference: ")
    assert (results["frechet"]["clips"], results["frechet"]["without"]) == (3, 3)
    assert "4 or more are needed" in results["frechet"]["reason"]
    assert "Not given: 3 clips have features" in markdown(results)


def test_an_embedder_that_dies_costs_the_distance_alone(settings):
    results = run(settings, MeanColour(error=EstimatorFailed("crashed", "out of memory")))
    assert results["summary"]["measured_in_part"] == {"video_features": 6}
    assert results["summary"]["geometric_consistency"]["mean"] == 1.0
    assert "reason" in results["frechet"]


def test_without_a_reference_there_is_a_message_and_no_distance(settings, tmp_path):
    alone = VideosSettings(settings.out, settings.generated, settings.cameras, pose_frames=5)
    said, embedder = [], MeanColour()
    results = run(alone, embedder, said)
    assert "--reference" in said[0]
    assert "--reference" in results["frechet"]["reason"]
    assert embedder.calls == 0
    assert run(settings, None)["frechet"] is None


def test_options_name_the_file_and_the_clips_at_a_time(tmp_path, monkeypatch):
    weights = tmp_path / "i3d.pt"
    asked = videos_options.asked_estimators(None, weights)
    assert asked == {"video_features": {"name": "i3d", "weights": str(weights)}}
    write_json(tmp_path / "estimators.json", asked)
    assert videos_options.asked_estimators(tmp_path / "estimators.json") == asked
    with pytest.raises(InvalidValue, match="keep one"):
        videos_options.asked_estimators(tmp_path / "estimators.json", weights)
    write_json(tmp_path / "estimators.json", {"video_feature": "i3d"})
    with pytest.raises(InvalidValue, match="unknown kind 'video_feature'"):
        videos_options.asked_estimators(tmp_path / "estimators.json")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert videos_options.default_jobs({}) == 6
    assert videos_options.default_jobs({"sfm": {"name": "colmap", "options": {"threads": 4}}}) == 1
    assert videos_options.default_jobs({"sfm": {"name": "colmap", "options": {"threads": 3}}}) == 2
    assert videos_options.default_jobs({"masks": {"name": "tmo", "python": "/envs/tmo/bin/python"}}) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert videos_options.default_jobs({}) == 8
