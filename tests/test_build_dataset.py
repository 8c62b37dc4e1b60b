"""build_dataset from the command line: real runs on small inputs, and every kind of bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from nano_weights import random_params

from camctrl_jax.build_dataset import building
from camctrl_jax.build_dataset.__main__ import main
from camctrl_jax.camera import Cameras, preset, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.checkpoints.weights import expected_vae
from camctrl_jax.data.clips import dataset_folders, open_clips, write_clips
from camctrl_jax.models import vae_preset
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png

SIZE = ["--height", "32", "--width", "48"]


def moving_squares(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    video = np.full((frames, height, width, 3), 90, np.uint8)
    for t in range(frames):
        video[t, 8:24, (t * 2) % (width - 16) : (t * 2) % (width - 16) + 16] = (200, 60, 40)
    return video


def path_of(frames: int, intrinsics=(0.75, 1.0, 0.5, 0.5)) -> Cameras:
    return dataclasses.replace(preset("dolly_in", frames, intrinsics=intrinsics), metric=False)


@pytest.fixture
def sources(tmp_path):
    """Two good videos of 24 frames in a folder, and folders for their poses and captions."""
    for name in ("videos", "poses", "captions"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        write_mp4(tmp_path / "videos" / f"{name}.mp4", moving_squares(24), fps=12)
        save_cameras(path_of(24), tmp_path / "poses" / f"{name}.txt", "realestate10k")
        (tmp_path / "captions" / f"{name}.txt").write_text(f"video {name}\nanother way to say {name}\n")
    return tmp_path


def build(folder, *options, poses=True, captions=True, max_bad_share=0.6, expected=0):
    """Build ``folder / 'set'`` from the sources; returns the dataset and its report."""
    arguments = ["videos", "--source", str(folder / "videos"), "--out", str(folder / "set"), *SIZE]
    arguments += ["--frames", "9", "--min-frames", "5", "--max-bad-share", str(max_bad_share)]
    arguments += ["--poses", str(folder / "poses")] * poses + [
        "--captions",
        str(folder / "captions"),
    ] * captions
    assert main([*arguments, *options]) == expected
    if expected:
        return None, None
    return open_clips(folder / "set"), json.loads((folder / "set" / "report.json").read_text())


def test_videos_are_cut_and_annotated(sources):
    dataset, report = build(sources)
    # 24 frames: two clips of nine, and the six that are left make one of five.
    assert dataset.index["num_frames"].tolist() == [9, 9, 5] * 2
    assert dataset.index["id"].tolist()[:3] == ["a.mp4#000000", "a.mp4#000009", "a.mp4#000018"]
    assert dataset.index["labelled"].all()
    assert report["totals"] == {"clips": 6, "frames": 46, "labelled": 6}
    assert report["sources"] == {"used": 2, "skipped": 0}
    clip = dataset[1]
    assert clip.captions == ("video a", "another way to say a")
    framing = Framing.cover((48, 64), (32, 48))
    expected = read_video(sources / "videos" / "a.mp4", start=9, frames=9, framing=framing)
    assert np.abs(read_video(clip.video).astype(float) - expected).mean() < 1.0
    path = path_of(24)
    np.testing.assert_allclose(clip.cameras.world_from_camera, path.world_from_camera[9:18], atol=1e-6)
    np.testing.assert_allclose(clip.cameras.intrinsics, framing.intrinsics(path.intrinsics[9:18]), atol=1e-6)
    assert not clip.metric
    assert build(sources, "--overwrite", "--metric")[0][0].metric


def test_frame_rates_and_strides(sources):
    write_mp4(sources / "videos" / "a.mp4", moving_squares(48), fps=24)
    save_cameras(path_of(48), sources / "poses" / "a.txt", "realestate10k")
    dataset, _ = build(sources, "--stride", "4")
    ids = [name for name in dataset.index["id"].tolist() if name.startswith("a.mp4")]
    assert ids == ["a.mp4#000000", "a.mp4#000008", "a.mp4#000016", "a.mp4#000024"]
    np.testing.assert_allclose(
        dataset[1].cameras.world_from_camera, path_of(48).world_from_camera[8:25:2], atol=1e-6
    )


def test_videos_without_poses_are_unlabelled(sources):
    (sources / "poses" / "b.txt").unlink()
    dataset, report = build(sources)
    labelled = [record.labelled for record in dataset]
    assert labelled == [True] * 3 + [False] * 3
    assert report["totals"]["labelled"] == 3
    dataset, _ = build(sources, "--overwrite", poses=False, captions=False)
    assert not dataset.index["labelled"].any()
    assert dataset[0].captions == ("",)


def spoil_truncated(folder):
    path = folder / "videos" / "a.mp4"
    path.write_bytes(path.read_bytes()[:-600])


def spoil_empty(folder):
    (folder / "videos" / "a.mp4").write_bytes(b"")


def spoil_link(folder):
    (folder / "videos" / "a.mp4").unlink()
    (folder / "videos" / "a.mp4").symlink_to(folder / "gone.mp4")


def spoil_pose_count(folder):
    save_cameras(path_of(20), folder / "poses" / "a.txt", "realestate10k")


def spoil_rotation(folder):
    poses = np.array(path_of(24).world_from_camera)
    poses[3, :3, :3] *= 1.2
    write_poses(folder, poses, path_of(24).intrinsics)


def spoil_nan(folder):
    poses = np.array(path_of(24).world_from_camera)
    poses[5, 1, 3] = np.nan
    write_poses(folder, poses, path_of(24).intrinsics)


def spoil_pixels(folder):
    write_poses(folder, path_of(24).world_from_camera, np.tile([48.0, 48.0, 32.0, 24.0], (24, 1)))


def write_poses(folder, poses, intrinsics):
    """A RealEstate10K file without any check."""
    lines = ["https://example.org/a"]
    for i, (pose, row) in enumerate(zip(poses, intrinsics)):
        with np.errstate(invalid="ignore"):
            extrinsics = np.full((3, 4), np.nan) if np.isnan(pose).any() else np.linalg.inv(pose)[:3]
        lines.append(" ".join(map(str, [i * 83333, *row, 0, 0, *extrinsics.ravel()])))
    (folder / "poses" / "a.txt").write_text("\n".join(lines) + "\n")


def spoil_caption(folder):
    (folder / "captions" / "a.txt").write_text(" \n")


def spoil_no_caption(folder):
    (folder / "captions" / "a.txt").unlink()


def spoil_short(folder):
    write_mp4(folder / "videos" / "a.mp4", moving_squares(4), fps=12)
    save_cameras(path_of(4), folder / "poses" / "a.txt", "realestate10k")


def spoil_rate(folder):
    write_mp4(folder / "videos" / "a.mp4", moving_squares(24), fps=6)


def spoil_two_poses(folder):
    save_cameras(path_of(24), folder / "poses" / "a.json", "motionctrl")


@pytest.mark.parametrize(
    ("spoil", "reason", "told"),
    [
        (spoil_truncated, "truncated", "a.mp4"),
        (spoil_empty, "unreadable", "a.mp4"),
        (spoil_link, "missing", "a.mp4"),
        (spoil_pose_count, "pose_count", "24 frames, but 20 poses"),
        (spoil_rotation, "bad_pose", "line 5"),
        (spoil_nan, "bad_pose", "line 7"),
        (spoil_pixels, "bad_pose", "pixels"),
        (spoil_caption, "empty_caption", "a.txt"),
        (spoil_no_caption, "no_caption", "a.txt"),
        (spoil_short, "too_short", "at least 5"),
        (spoil_rate, "low_frame_rate", "lower rate"),
        (spoil_two_poses, "ambiguous_poses", "a.json"),
    ],
)
def test_a_bad_source_is_skipped_counted_and_listed(sources, spoil, reason, told):
    spoil(sources)
    dataset, report = build(sources)
    assert {record.id.split("#")[0] for record in dataset} == {"b.mp4"}
    assert report["sources"] == {"used": 1, "skipped": 1}
    assert report["skipped_by_reason"] == {reason: 1}
    (skipped,) = report["skipped"]
    assert skipped["clip"].endswith("a.mp4")
    assert told in skipped["message"]


def test_too_many_bad_sources_stop_the_run_and_leave_no_dataset(sources, capsys):
    spoil_caption(sources)
    build(sources, max_bad_share=0.4, expected=1)
    told = capsys.readouterr().err
    assert "1 of 2 sources are bad" in told
    assert told.count("a.txt") == 1
    assert "1 empty_caption" in told
    assert not (sources / "set").exists()
    listing = json.loads((sources / "set.failed.json").read_text())
    assert listing["skipped"][0]["reason"] == "empty_caption"
    assert not list(sources.glob(".set*"))


def test_annotations_whose_video_is_missing_are_listed(sources, capsys):
    (sources / "captions" / "gone.txt").write_text("a video that is not there")
    save_cameras(path_of(24), sources / "poses" / "gone.txt", "realestate10k")
    _, report = build(sources)
    assert len(report["annotations_without_video"]) == 2
    assert all("gone.txt" in entry for entry in report["annotations_without_video"])
    assert "2 pose or caption entries" in capsys.readouterr().out


def test_odd_picture_sizes_are_cropped_to_the_clip(sources):
    write_mp4(sources / "videos" / "a.mp4", moving_squares(24, 49, 61), fps=12)  # padded to 50x62 on disk
    dataset, _ = build(sources)
    assert read_video(dataset[0].video).shape == (9, 32, 48, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.json", json.dumps({"a.mp4": "one", "b": ["two", "three"]})),
        ("captions.jsonl", '{"file": "a", "caption": "one"}\n\n{"file": "b.mp4", "caption": "two"}\n'),
        ("captions.csv", '\ufefffile,caption\na.mp4,one\nb,two\nb,"three, or four"\n'),
        ("captions.txt", "the same for all\n"),
    ],
)
def test_caption_files(sources, name, content):
    (sources / name).write_text(content)
    dataset, _ = build(sources, "--captions", str(sources / name), captions=False)
    captions = {record.id.split(".")[0]: record.captions for record in dataset}
    expected = {
        "captions.json": {"a": ("one",), "b": ("two", "three")},
        "captions.jsonl": {"a": ("one",), "b": ("two",)},
        "captions.csv": {"a": ("one",), "b": ("two", "three, or four")},
        "captions.txt": {"a": ("the same for all",), "b": ("the same for all",)},
    }
    assert captions == expected[name]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("captions.json", '{"a": 1}', "'a'"),
        ("captions.json", "[1", "captions.json"),
        ("captions.jsonl", '{"file": "a", "caption": "one"}\n{"name": "b"}\n', "line 2"),
        ("captions.csv", "name,text\na,b\n", "line 2"),
        ("captions.txt", "\n", "empty"),
        ("captions.json", b'{"a": "caf\xe9"}', "UTF-8"),
        ("captions.csv", b"file,caption\na,caf\xe9\n", "UTF-8"),
        ("captions.xml", "<a/>", "expected a folder"),
    ],
)
def test_broken_caption_files_are_named(sources, capsys, name, content, told):
    (sources / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    build(sources, "--captions", str(sources / name), captions=False, expected=1)
    error = capsys.readouterr().err
    assert name in error
    assert told in error


def test_folders_of_images_and_stills(sources, tmp_path):
    folder = tmp_path / "frames" / "walk"
    folder.mkdir(parents=True)
    for i, picture in enumerate(moving_squares(11)):
        write_png(folder / f"{i}.png", picture)
    for options, frames in (([], [9]), (["--stills"], [1] * 11)):
        arguments = ["videos", "--source", str(tmp_path / "frames"), "--out", str(tmp_path / "set"), *SIZE]
        assert main([*arguments, "--frames", "9", "--overwrite", *options]) == 0
        dataset = open_clips(tmp_path / "set")
        assert dataset.index["num_frames"].tolist() == frames
        assert dataset.index["id"][0].startswith("walk")
    one = ["videos", "--source", str(folder / "3.png"), "--out", str(tmp_path / "one"), *SIZE]
    assert main(one) == 0
    assert open_clips(tmp_path / "one").index["num_frames"].tolist() == [1]


@pytest.fixture
def small_vae(monkeypatch):
    """Configuration and parameters of what ``--latents mine`` names."""
    config = vae_preset("nano", num_res_blocks=0)
    params = random_params(expected_vae(config), seed=0)
    monkeypatch.setattr(building, "load_vae", lambda spec: (config, params) if spec == "mine" else None)
    return config, params


def test_worlds_with_cached_latents(tmp_path, small_vae):
    arguments = f"worlds --out {tmp_path / 'set'} --count 2 --seed 5 --frames 9 --samples 1 --latents mine"
    assert main([*arguments.split(), *SIZE]) == 0
    dataset = open_clips(tmp_path / "set")
    assert dataset.latents
    assert dataset[0].id == "world-5"
    assert dataset[0].latents.shape == (3, 4, 6, 16)
    assert len(dataset[0].captions) > 1
    assert dataset[0].metric


def encode(folder, *options, expected=0):
    """Encode the dataset ``folder / 'set'`` as ``folder / 'latents'``."""
    arguments = ["latents", "--source", str(folder / "set"), "--out", str(folder / "latents")]
    assert main([*arguments, "--latents", "mine", *options]) == expected


def test_a_dataset_is_encoded_in_shards(sources, small_vae, capsys):
    source, _ = build(sources)  # two clips of 9 frames and one of 5 of each video
    encoder = Autoencoder(*small_vae, dtype=jnp.float32, batch_size=16)
    for shard in ("2/4", "0/4", "1/4"):
        encode(sources, "--shard", shard, "--batch", "2")
    with pytest.raises(FileNotFoundError, match=r"of 4 shards these are missing: 3\."):
        dataset_folders(sources / "latents")
    encode(sources, "--shard", "3/4", "--batch", "2")
    shards = [open_clips(part) for part in dataset_folders(sources / "latents")]
    assert [len(shard) for shard in shards] == [1, 2, 1, 2]
    encoded = {clip.id: clip for shard in shards for clip in shard}
    assert set(encoded) == set(source.index["id"])
    for clip in source:
        own = encoded[clip.id]
        video = read_video(clip.video, size=(32, 48))
        np.testing.assert_allclose(own.latents, np.asarray(encoder.encode(video[None]))[0], atol=2e-3)
        assert (own.captions, own.source, own.labelled) == (clip.captions, clip.source, True)
        np.testing.assert_array_equal(own.cameras.world_from_camera, clip.cameras.world_from_camera)
    capsys.readouterr()
    encode(sources, "--shard", "1/4")
    assert "nothing to do" in capsys.readouterr().out
    encode(sources, "--shard", "0/3", expected=1)
    assert "is of a job of 4 shards, not 3" in capsys.readouterr().err
    build(sources, "--overwrite", captions=False, max_bad_share=0.5)  # other clips under the same names
    encode(sources, "--shard", "1/4", expected=1)
    assert "--overwrite" in capsys.readouterr().err
    encode(sources, "--shard", "1/4", "--overwrite")
    with pytest.raises(ValueError, match=r"different clips, text or autoencoders .*; 00001-of-00004"):
        dataset_folders(sources / "latents")


def test_latents_that_are_not_finite_are_skipped(sources, small_vae, monkeypatch):
    source, _ = build(sources)
    whole = Autoencoder.encode

    def spoiled(encoder, video, *options, **named):
        latents = np.array(whole(encoder, video, *options, **named))
        if latents.shape[1] == 2:  # the clips of five frames
            latents[0, 0, 0, 0, 0] = np.inf
        return latents

    monkeypatch.setattr(Autoencoder, "encode", spoiled)
    encode(sources, "--batch", "1", "--max-bad-share", "0.4")
    report = json.loads((sources / "latents" / "report.json").read_text())
    assert report["skipped_by_reason"] == {"non_finite": 2}
    assert len(open_clips(sources / "latents")) == len(source) - 2


def test_clips_that_cannot_be_decoded_are_skipped_and_listed(sources, small_vae, capsys):
    source, _ = build(sources)
    first, *rest = source
    shutil.rmtree(sources / "set")
    write_clips(sources / "set", [dataclasses.replace(first, video=first.video[:200]), *rest])
    encode(sources, expected=1)
    assert "1 of 6 clips are bad" in capsys.readouterr().err
    encode(sources, "--max-bad-share", "0.2")
    assert [clip.id for clip in open_clips(sources / "latents")] != []
    report = json.loads((sources / "latents" / "report.json").read_text())
    assert report["sources"] == {"used": 5, "skipped": 1}
    assert report["skipped"][0]["clip"] == f"set/{first.id}"


def test_latents_are_not_encoded_again_and_shards_are_not_empty(sources, small_vae, capsys):
    build(sources)
    for options, told in (
        (("--shard", "4/4"), "expected K/N"),
        (("--shard", "0/7"), "there are only 6 clips"),
        (("--batch", "0"), "--batch 0"),
    ):
        encode(sources, *options, expected=1)
        assert told in capsys.readouterr().err
    arguments = ["latents", "--source", str(sources / "set"), "--latents", "mine", "--overwrite"]
    assert main([*arguments, "--out", str(sources / "set")]) == 1
    assert "holds the source" in capsys.readouterr().err
    encode(sources)
    encode(sources, "--shard", "0/2", expected=1)
    assert "not a folder of shards" in capsys.readouterr().err
    shutil.rmtree(sources / "set")
    (sources / "latents").rename(sources / "set")
    encode(sources, expected=1)
    assert "holds latents already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["worlds", "--frames", "48"], "4k+1 frames, for example 45 or 49"),
        (["worlds", "--height", "100"], "multiple of 16"),
        (["worlds", "--count", "0"], "--count 0"),
        (["worlds", "--unlabelled-share", "20"], "--unlabelled-share 20"),
        (["worlds", "--workers", "-1"], "--workers -1"),
        (["worlds", "--windows-per-take", "2"], "--take-frames 193"),
        (["worlds", "--take-frames", "20"], "at least the 49 frames"),
        (["worlds", "--take-frames", "97", "--layout", "park"], "Places.layout is 'park'"),
        (["worlds", "--crf", "52"], "--crf 52"),
        (["videos", "--source", "nowhere"], "nowhere: no such file or folder"),
        (["videos", "--source", "."], "no videos"),
    ],
)
def test_impossible_requests_are_refused_before_any_work(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", "set"]) == 1
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_assumptions_about_pose_files_are_reported(sources, capsys):
    (sources / "poses" / "a.txt").unlink()
    save_cameras(path_of(24), sources / "poses" / "a", "lingbot", image_size=(96, 128))  # the video is 48x64
    _, report = build(sources)
    assert report["sources"] == {"used": 2, "skipped": 0}
    (remark,) = report["remarks_on_poses"]
    assert "principal point (1.00, 1.00)" in remark
    assert remark in capsys.readouterr().out


def test_one_pose_file_does_not_serve_several_videos(sources, capsys):
    build(sources, "--poses", str(sources / "poses" / "a.txt"), poses=False, expected=1)
    assert "a.txt is one file, but" in capsys.readouterr().err


def test_an_existing_dataset_is_refused_first(sources, capsys):
    build(sources)
    build(sources, expected=1)
    assert "--overwrite" in capsys.readouterr().err


def test_help_teaches():
    for command, words in (
        ([], ["examples:", "worlds", "videos"]),
        (["videos"], ["--poses", "4k+1", "report.json"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "camctrl_jax.build_dataset", *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert all(word in done.stdout for word in words)


@pytest.mark.slow
def test_a_terminated_build_cleans_up(tmp_path):
    """SIGTERM in the middle of a build: no dataset, no left-overs."""
    (tmp_path / "videos").mkdir()
    write_mp4(tmp_path / "videos" / "0.mp4", moving_squares(48, 256, 256), fps=12)
    for i in range(1, 200):
        shutil.copy(tmp_path / "videos" / "0.mp4", tmp_path / "videos" / f"{i}.mp4")
    command = [
        sys.executable,
        "-m",
        "camctrl_jax.build_dataset",
        "videos",
        "--source",
        "videos",
        "--out",
        "set",
    ]
    size = ["--frames", "9", "--height", "256", "--width", "256", "--crf", "1"]
    process = subprocess.Popen([*command, *size], cwd=tmp_path)
    while not list(tmp_path.glob(".set.*.partial")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_real_videos(test_data, tmp_path):
    """The dog video and the bedroom frames become unlabelled clips."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "dog.mp4").symlink_to(test_data("vipe_dog/dog-example.mp4"))
    (tmp_path / "videos" / "bedroom").symlink_to(test_data("sam2_bedroom"))
    captions = {"dog": "a dog runs on grass", "bedroom": "children jump on a bed"}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    arguments = ["videos", "--source", str(tmp_path / "videos"), "--out", str(tmp_path / "set")]
    assert main([*arguments, "--captions", str(tmp_path / "captions.json")]) == 0
    dataset = open_clips(tmp_path / "set")
    assert dataset.index["id"].tolist() == ["bedroom#000000", "dog.mp4#000000"]
    assert dataset.index["num_frames"].tolist() == [29, 49]
    assert (dataset.index["height"] == 96).all()
    assert not dataset.index["labelled"].any()
    video = read_video(dataset[1].video)
    assert video.shape == (49, 96, 160, 3)
    assert (
        np.abs(np.diff(video.astype(float), axis=0)).mean(axis=(1, 2, 3)).min() > 0.5
    )  # no frame is shown twice


def test_real_frames_with_real_poses(test_data, tmp_path):
    """Five photographs with the trajectory that was measured for them."""
    folder, trajectory = test_data("open3d_rgbd/color"), test_data("open3d_rgbd/trajectory.log")
    arguments = [
        "videos",
        "--source",
        str(folder),
        "--poses",
        str(trajectory),
        "--out",
        str(tmp_path / "set"),
    ]
    assert main([*arguments, "--frames", "5", "--min-frames", "5", "--metric"]) == 0
    clip = open_clips(tmp_path / "set")[0]
    assert clip.labelled
    assert clip.metric
    assert len(clip.cameras) == 5
    assert 0.0 < clip.cameras.path_length < 0.5
