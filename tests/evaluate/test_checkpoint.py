"""``evaluate checkpoint``: what is asked of a model, what is compared with what, what fails, and going on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from nano_weights import save_nano
from pattern_videos import pattern_video

from camctrl_jax.camera import load_cameras, preset, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.reading import Reading
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import ClipError, FileFailure, InvalidValue, UserError
from camctrl_jax.estimators import Fingerprint, MotionMasks, SfmResult
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.checkpoint import (
    CheckpointSettings,
    clips,
    evaluate_checkpoint,
    page,
    running,
    sampling,
)
from camctrl_jax.evaluate.checkpoint.sampling import Plan, decoy_paths, noise_seed
from camctrl_jax.evaluate.videos import Estimators
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.sampling.pipeline import Pipeline
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import write_mp4

pytest.importorskip("av", reason="videos are read and written by PyAV")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")

PATHS = {"a": "dolly_in", "b": "orbit_left", "c": "pan_left"}
FIGURES = "camctrl_jax.evaluate.videos.running.write_figures"  # tested where they are, and slow
ROW = "samples/steps1_camera2_text1/i2v"


@dataclass
class Known:
    """Estimators whose answers are known: half of the picture moves, and poses are those of dolly_in."""

    def fingerprint(self):
        return Fingerprint("known", "1", ())

    def segment(self, frames, fps):
        moving = np.zeros(frames.shape[:3], bool)
        moving[:, : frames.shape[1] // 2] = True
        return MotionMasks(moving)

    def flow(self, a, b):
        return np.broadcast_to(np.float32((3.0, 4.0)), (*a.shape[:3], 2))

    def embed(self, frames):
        return np.tile(np.float32((1.0, 0.0)), (len(frames), 1))

    def reconstruct(self, frames, masks=None, intrinsics=None, times=None):
        return SfmResult.of_cameras(
            preset("dolly_in", 11)[np.linspace(0, 8, len(frames)).round().astype(int)]
        )


ESTIMATORS = Estimators(Known(), Known(), Known(), Known())


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """Three videos of another size and length than the model's, the last at twice its rate and with another
    lens; one broken, one without poses, one short."""
    folder = tmp_path_factory.mktemp("user")
    for seed, name in enumerate(PATHS):
        cameras, every = user_path(name)
        video = pattern_video(len(cameras), 40, 80, seed)
        write_mp4(folder / f"clips/{name}.mp4", video, 12.0 * every, crf=None)
        save_cameras_in(folder / f"paths/{name}.txt", cameras)
    data = (folder / "clips/a.mp4").read_bytes()
    (folder / "clips/broken.mp4").write_bytes(data[: len(data) // 2])
    save_cameras_in(folder / "paths/broken.txt", preset("dolly_in", 11))
    write_mp4(folder / "clips/lonely.mp4", pattern_video(11, 40, 80), 12.0)
    write_mp4(folder / "clips/short.mp4", pattern_video(5, 40, 80), 12.0)
    save_cameras_in(folder / "paths/short.txt", preset("dolly_in", 5))
    return folder


def user_path(name):
    """The cameras of a video, and of every how many of its frames one is taken."""
    if name == "c":
        return preset(PATHS[name], 22).with_intrinsics((0.7, 1.3, 0.45, 0.55)), 2
    return preset(PATHS[name], 11), 1


def save_cameras_in(path, cameras):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_cameras(cameras, path)


@pytest.fixture(scope="module")
def run(nano, user, tmp_path_factory):
    """A whole run, and the lines that it said."""
    settings = CheckpointSettings(
        tmp_path_factory.mktemp("run"),
        checkpoint=str(nano),
        videos=user / "clips",
        cameras=user / "paths",
        steps=(1,),
        seeds=2,
        batch_size=2,
        decoys=True,
        pose_frames=5,
        shown=0,
    )
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FIGURES, lambda *arguments: [])
        return settings, evaluate_checkpoint(settings, ESTIMATORS, lines.append), lines


def test_clips_are_cut_framed_and_their_cameras_follow(run, user):
    settings, results, _ = run
    framing = Framing.cover((40, 80), (32, 48))
    for name in PATHS:
        cameras, every = user_path(name)
        true = read_video(settings.out / f"reference/{name}.mp4")
        source = read_video(user / f"clips/{name}.mp4", framing=framing)
        np.testing.assert_array_equal(true, source[: 9 * every : every])
        asked, own = load_cameras(settings.out / f"cameras/{name}.txt"), cameras[: 9 * every : every]
        np.testing.assert_allclose(asked.intrinsics, framing.intrinsics(own.intrinsics), atol=1e-6)
        np.testing.assert_allclose(asked.world_from_camera, own.world_from_camera, atol=1e-6)
        np.testing.assert_allclose(asked.times, np.arange(9) / 12.0, atol=1e-6)
    assert results["clip"] == {"frames": 9, "height": 32, "width": 48, "fps": 12.0}


def test_what_cannot_be_used_is_counted_with_its_reason(run):
    _, results, lines = run
    assert results["failed_by_reason"] == {"truncated": 1, "no_cameras": 1, "too_short": 1}
    assert set(results["failed"]) == {"broken", "lonely", "short"}
    assert results["summary"]["clips"] == 3
    assert "no pose file of its name" in results["failed"]["lonely"]
    assert "lonely" in page(results)
    assert any("3 clips of 9 frames, 32x48, 3 failed" in line for line in lines)
    assert any("; 0 s left" in line for line in lines)


def test_measures_are_those_of_the_files_that_were_written(run):
    settings, results, _ = run
    for name, record in results["samples"]["steps1_camera2_text1"]["i2v"].items():
        true = read_video(settings.out / f"reference/{name}.mp4")[5:]
        seeds = [read_video(settings.out / ROW / f"seed_{n}/{name}.mp4")[5:] for n in range(2)]
        decoy = read_video(settings.out / ROW / f"decoy/{name}.mp4")[5:]
        levels = [float(psnr(one, true)) for one in seeds]
        assert record["psnr_db"] == pytest.approx(np.mean(levels))
        assert record["gain_decoy"] == pytest.approx(levels[0] - float(psnr(decoy, true)))
        assert (seeds[0] != seeds[1]).any()
        assert (seeds[0] != decoy).any()
        assert record["energy"] > 0.0
    summary = results["summary"]["rows"]["steps1_camera2_text1/i2v"]
    assert summary["psnr_db"]["clips"] == 3
    assert len(results["summary"]["frame_psnr_db"]["steps1_camera2_text1/i2v, decoy"]) == 9


def test_estimates_are_of_samples_and_of_the_true_clips_beside_them(run):
    settings, results, _ = run
    assert set(results["estimates"]) == {"truth", *(f"steps1_camera2_text1/i2v/seed_{n}" for n in range(2))}
    found = results["summary"]["rows"]["steps1_camera2_text1/i2v"]["estimates"]
    assert found["motion_px"]["mean"] == pytest.approx(5.0)
    assert found["moving_share"]["mean"] == pytest.approx(0.5)
    found = results["estimates"]["steps1_camera2_text1/i2v/seed_1"]["clips"]
    assert found["a"]["trans_err"] == pytest.approx(0.0, abs=1e-6)  # dolly_in was asked for, and is "found"
    assert found["b"]["rot_err_aligned_deg"] > 1.0
    assert found["a"]["psnr_db"] == pytest.approx(
        float(
            psnr(
                read_video(settings.out / ROW / "seed_1/a.mp4"), read_video(settings.out / "reference/a.mp4")
            )
        ),
        abs=1e-3,
    )
    assert results["summary"]["true_clips"]["registered"]["mean"] == 1.0
    assert "| Motion strength | 5 (5 to 5) | 0 | 5 (5 to 5) |" in page(results)


def test_the_same_command_samples_and_cuts_nothing_again(run, monkeypatch):
    settings, results, _ = run

    def never(*arguments, **options):
        raise AssertionError("was done before")

    cut = []
    monkeypatch.setattr(Pipeline, "sample", never)
    monkeypatch.setattr(FIGURES, lambda *arguments: [])
    monkeypatch.setattr(
        clips, "cut_source", lambda source, *rest, **options: cut.append(source.stem) or iter(())
    )
    before = (settings.out / ROW / "seed_0/a.mp4").stat().st_mtime_ns
    again = evaluate_checkpoint(settings, ESTIMATORS, lambda line: None)
    assert sorted(cut) == ["broken", "short"]  # what failed may have been mended
    assert again["summary"]["rows"] == results["summary"]["rows"]
    assert (settings.out / ROW / "seed_0/a.mp4").stat().st_mtime_ns == before
    (settings.out / ROW / "seed_1/a.mp4").unlink()
    with pytest.raises(AssertionError, match="was done before"):
        evaluate_checkpoint(settings, ESTIMATORS, lambda line: None)


def test_other_weights_are_sampled_anew_and_clips_that_fail_cost_only_themselves(run, monkeypatch, tmp_path):
    settings = replace(run[0], out=tmp_path / "out")
    shutil.copytree(run[0].out, settings.out)
    tried = []

    def make(bench, unit, places, count):
        tried.append((list(places), count))
        for place in places:  # what is there is of other weights
            assert not list((settings.out / ROW).glob(f"*/{bench.clips[place].name}.*"))
        if 1 in places:
            raise ClipError("not_finite", "decodes to NaN")

    monkeypatch.setattr(running, "_make", make)
    monkeypatch.setattr(running, "fingerprint_of_weights", lambda config, params: "other")
    monkeypatch.setattr(running, "_record", lambda path, key, files: {"energy": None} if not files else None)
    results = evaluate_checkpoint(replace(settings, estimates=False), None, lambda line: None)
    # A batch with a bad clip is tried clip by clip, in batches of the same size.
    assert tried == [([0, 1], 2), ([0, 0], 1), ([1, 1], 1), ([2, 2], 1)]
    records = results["samples"]["steps1_camera2_text1"]["i2v"]
    assert [name for name, record in records.items() if "failed" in record] == ["b"]
    assert results["summary"]["sampling_failed"] == 1
    assert "b: decodes to NaN" in page(results)
    assert not list((settings.out / ROW).glob("*/b.*"))  # or an old sample would be measured in its place

    tried.clear()
    evaluate_checkpoint(replace(settings, estimates=False, batch_size=8), None, lambda line: None)
    assert tried[0] == ([0, 1, 2], 3)  # no place of a batch is filled up for nothing

    def full(bench, unit, places, count):
        raise FileFailure("cannot write: the disk is full")

    monkeypatch.setattr(running, "_make", full)
    with pytest.raises(FileFailure):  # would be so of every clip
        evaluate_checkpoint(replace(settings, estimates=False), None, lambda line: None)


def without_loading(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(running, "load_pipeline", never)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"frames": 13, "videos": "clips"},
            "None of 6 videos or clips can be used.*a clip needs at least 13",
        ),
        ({"frames": 10}, "frames=10: expected 4k"),
        ({"tasks": ("t2v", "i2v")}, "--tasks t2v .* --captions"),
        ({"dataset": "paths"}, "one of the two"),
        ({"cameras": None}, "--videos needs --cameras"),
        ({"videos": "nowhere"}, "--videos .*nowhere: no such"),
        ({"videos": None, "dataset": "paths"}, "--cameras: belongs to --videos"),
        ({"videos": None, "cameras": None, "dataset": "paths"}, "holds no dataset of clips"),
        (
            {
                "videos": None,
                "cameras": None,
                "dataset": "paths",
                "per_video": 2,
                "reading": Reading("tum"),
            },
            "--per-video, how to read pose files: belongs to --videos",
        ),
        ({"count": 1}, "--decoys .* 2 clips or more"),
        ({"frames": 5, "clips": 2}, "--clips 2: clips of 5 frames are too short"),
        ({"frames": 5, "tasks": ("extension",), "decoys": False}, "--tasks extension: clips of 5 frames"),
        ({"frames": 5}, "--frames 5: i2v is scored from frame 6 on; 9 or more"),
        ({"tasks": ("extension",)}, "--decoys are paths of i2v"),
        ({"steps": (0,)}, "at least 1"),
        ({"seeds": 0}, "--seeds 0: expected 1 or more"),
        ({"pose_frames": 2}, "--pose-frames 2: expected 3 or more"),
        ({"jobs": 0}, "--jobs 0: expected 1 or more"),
        ({"estimates": False}, "give both, or estimates=False and None"),
        ({"camera_scale": -1.0}, "--camera-scale -1"),
        ({"checkpoint": "camera"}, "has no camera input"),
        ({"checkpoint": "mmdit"}, "holds an autoencoder but no transformer"),
    ],
)
def test_mistakes_are_found_before_the_weights_are_read(run, user, tmp_path, monkeypatch, change, message):
    without_loading(monkeypatch)
    for name in ("videos", "cameras", "dataset"):
        if isinstance(change.get(name), str):
            change = change | {name: user / change[name]}
    if "checkpoint" in change:
        change = {"checkpoint": str(save_nano(tmp_path / "other", **{change["checkpoint"]: False}))}
    with pytest.raises(UserError, match=message):
        evaluate_checkpoint(replace(run[0], out=tmp_path / "out", **change), ESTIMATORS, lambda line: None)


def test_clips_too_short_for_video_features_are_refused_before_sampling(run, tmp_path, monkeypatch):
    without_loading(monkeypatch)
    features = replace(ESTIMATORS, video_features=SimpleNamespace(least_frames=10))
    with pytest.raises(InvalidValue, match="need 10 frames or more, and the clips have 9"):
        evaluate_checkpoint(replace(run[0], out=tmp_path / "out"), features, lambda line: None)
    running.check_features(features, Plan(ClipShape(17, 32, 48)), ("i2v", "extension"))
    with pytest.raises(InvalidValue, match="the clips have 8"):
        running.check_features(features, Plan(ClipShape(13, 32, 48)), ("i2v", "extension"))


def test_a_device_without_memory_for_a_batch_says_what_to_do(run, monkeypatch):
    def full(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(running, "_make", full)
    monkeypatch.setattr(running, "_remove", lambda *arguments: None)
    with pytest.raises(InvalidValue, match="--batch-size 2: the device has no memory"):
        running._sample(None, None, [0, 0], 1)


def test_a_run_that_was_trained_on_the_clips_is_remarked_upon(nano, run, tmp_path, monkeypatch):
    config = {"data": {"datasets": [str(tmp_path / "mine")], "unlabelled": []}}
    monkeypatch.setattr(running, "load_run_config", lambda path: config)
    (tmp_path / "mine").mkdir()
    (tmp_path / "others").mkdir()
    weights = replace(open_weights(str(nano)), kind="run")
    base = {"videos": None, "cameras": None}
    found = running.trained_on(weights, replace(run[0], dataset=tmp_path / "others/../mine", **base))
    assert ["was trained on" in each for each in found] == [True]
    assert running.trained_on(weights, replace(run[0], dataset=tmp_path / "others", **base)) == []


def test_a_folder_of_other_clips_is_refused(run, monkeypatch):
    without_loading(monkeypatch)
    with pytest.raises(UserError, match=r"holds clips that are not asked for \(1, such as c\)"):
        evaluate_checkpoint(replace(run[0], count=2), ESTIMATORS, lambda line: None)


def test_explorations_have_the_length_that_their_clips_add_up_to():
    plan = Plan(ClipShape(49, 96, 160), clips=3)
    assert (plan.context, plan.added, plan.frames) == (13, 36, 121)
    assert plan.windows("i2v") == [slice(5, 49), slice(49, 85), slice(85, 121)]  # from the first scored one
    assert plan.windows("extension")[0] == slice(13, 49)
    assert Plan(ClipShape(9, 32, 48)).frames == 9


def test_noise_follows_from_the_name_and_decoys_from_the_next_clip():
    seeds = {noise_seed(name, sample, clip) for name in "ab" for sample in range(3) for clip in range(3)}
    assert len(seeds) == 18
    paths = [preset("dolly_in", 9), preset("pan_left", 9).transformed(np.diag([-1.0, 1, -1, 1]))]
    paths[0] = paths[0].with_intrinsics((0.7, 1.2, 0.5, 0.5))
    decoys = decoy_paths(paths)
    np.testing.assert_allclose(
        decoys[0].world_from_camera, preset("pan_left", 9).world_from_camera, atol=1e-12
    )
    np.testing.assert_array_equal(decoys[0].intrinsics, paths[0].intrinsics)
    np.testing.assert_allclose(decoys[1].world_from_camera, paths[0].world_from_camera)


# ------------------------------------------------------------------------------------------------- slow: real


@pytest.mark.slow
def test_every_task_on_a_dataset_clip_after_clip_from_the_command_line(nano, tmp_path, capsys):
    from camctrl_jax.build_dataset.__main__ import main as build

    size = ("--frames", "17", "--height", "32", "--width", "48")
    assert build(["worlds", "--out", str(tmp_path / "data"), "--count", "3", *size]) == 0
    out = tmp_path / "out"
    command = ["checkpoint", "--checkpoint", str(nano), "--dataset", str(tmp_path / "data"), "--clips", "3"]
    command += ["--out", str(out), "--tasks", "i2v", "t2v", "extension", "--steps", "1", "--count", "2"]
    assert main([*command, "--without-estimates"]) == 0
    printed = capsys.readouterr().out
    assert "explorations of 3 clips, 17 frames in all" in printed
    assert "PSNR clip after clip" in printed
    results = json.loads((out / "results.json").read_text())
    tasks = results["samples"]["steps1_camera2_text1"]
    assert set(tasks) == {"i2v", "t2v", "extension"}
    name = next(iter(tasks["extension"]))
    folder = out / "samples/steps1_camera2_text1/extension"
    # What is new is judged: the 12 frames after the five that were given.
    assert len(read_video(folder / f"seed_0/{name}.mp4")) == 12
    true = read_video(out / f"reference/{name}.mp4")
    np.testing.assert_array_equal(read_video(folder / f"reference/{name}.mp4"), true[5:])
    asked = load_cameras(out / f"cameras/{name}.txt")[5:].relative_to(0)
    found = load_cameras(folder / f"cameras/{name}.txt")
    np.testing.assert_allclose(found.world_from_camera, asked.world_from_camera, atol=1e-6)
    assert len(tasks["extension"][name]["clip_psnr_db"]) == 3


@pytest.mark.slow
def test_it_agrees_with_evaluate_worlds_on_the_embedded_weights(tmp_path, monkeypatch):
    """Two worlds as a user's videos with pose files: the same clips, the same noise, the same PSNR."""
    from camctrl_jax.evaluate import worlds
    from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

    shape = {"frames": 17, "height": 64, "width": 96}
    seeds = (1_000_000, 1_000_001)
    for seed in seeds:
        world = sample_world(seed, WorldsConfig(frames=17, aspect=1.5))
        video = np.asarray(render_rgb([world], 64, 96))[0]
        write_mp4(tmp_path / f"clips/{seed}.mp4", video, 12.0, crf=None)
        write_mp4(tmp_path / f"lossy/{seed}.mp4", video, 12.0)
        save_cameras_in(tmp_path / f"paths/{seed}.txt", world.cameras)
        (tmp_path / "captions").mkdir(exist_ok=True)
        (tmp_path / f"captions/{seed}.txt").write_text(world.captions[0])
    evaluated = worlds.evaluate_worlds(
        worlds.Settings(
            tmp_path / "worlds",
            count=2,
            seeds=1,
            steps=(2,),
            tasks=("i2v",),
            paths="own",
            features="none",
            shown=0,
            **shape,
        ),
        say=lambda line: None,
    )
    assert evaluated["measured_now"] == 2
    expected = {}
    for index, seed in enumerate(seeds):
        record = json.loads((tmp_path / f"worlds/clips/scene_{index:03d}.json").read_text())
        expected[str(seed)] = next(iter(record["rows"].values()))["i2v"]["mean"]["psnr"]
    monkeypatch.setattr(sampling, "noise_seed", lambda name, sample, clip: int(name))
    found = {}
    for kind in ("clips", "lossy"):
        settings = CheckpointSettings(
            tmp_path / f"out_{kind}",
            videos=tmp_path / kind,
            cameras=tmp_path / "paths",
            captions=tmp_path / "captions",
            steps=(2,),
            estimates=False,
            **shape,
        )
        results = evaluate_checkpoint(settings, None, lambda line: None)
        records = next(iter(results["samples"].values()))["i2v"]
        found[kind] = {name: record["psnr_db"] for name, record in records.items()}
    assert found["clips"] == pytest.approx(expected, abs=0.02)  # pose files round, nothing else differs
    assert found["lossy"] == pytest.approx(expected, abs=0.5)  # the codec of the user's videos
    assert found["lossy"] != pytest.approx(expected, abs=1e-6)
