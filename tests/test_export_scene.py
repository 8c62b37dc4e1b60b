"""``export scene``: from files to a folder, and every way in which files do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from textured_plane import NORMAL, OFFSET, plane_video, truck

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import save_cameras
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.export.__main__ import main
from camctrl_jax.files.json_file import write_json
from camctrl_jax.sampling.exploration_folder import Clip, ExplorationFolder, ExplorationSettings
from camctrl_jax.sampling.pipeline import Extension
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png

SIZE = (40, 64)
FEW = ("--planes", "32", "--agree", "3")
NEAR_FAR = (*FEW, "--near", "2", "--far", "5")  # as found, but at once


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a video, its cameras in two formats, and a generate folder beside it."""
    folder = tmp_path_factory.mktemp("clip")
    cameras = truck()
    frames, _ = plane_video(cameras, SIZE)
    write_mp4(folder / "video.mp4", frames, 12, crf=None)
    save_cameras(cameras, folder / "transforms.json", format="transforms_json", image_size=SIZE)
    save_cameras(cameras.with_fps(12), folder / "tum.txt", format="tum")
    generated(folder / "generated", cameras, frames)
    return folder, cameras, frames


def generated(folder, cameras, frames):
    """What generate writes, as far as it is read here."""
    write_mp4(folder / "video.mp4", frames, 12, crf=None)
    path = None
    if cameras is not None:
        path = {
            "world_from_camera": cameras.world_from_camera.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
        }
    height, width = frames.shape[1:3]
    shape = {"frames": len(frames), "fps": 12, "height": height, "width": width}
    write_json(folder / "generation.json", {"camera": path, "clip": shape, "files": {"video": "video.mp4"}})


def run(*words):
    return main(["scene", *map(str, words)])


def read_points(folder):
    _, _, data = (folder / "points.ply").read_bytes().partition(b"end_header\n")
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")])
    return np.frombuffer(data, row)


def test_an_exploration_becomes_a_scene_of_its_current_clip_and_those_before_it(clip, tmp_path):
    """Of three clips: two go on from the first, of which the one that is not the current one is black."""
    _, cameras, frames = clip
    extension, sampling = Extension(1, 1, 0), Sampling(Guidance())
    settings = ExplorationSettings(1, 12.0, 4, *SIZE, extension, sampling, "some weights")
    folder = ExplorationFolder(tmp_path / "explored")
    folder.write_settings(settings)
    for name, parent, part, pictures in (
        ("0001", None, slice(0, 4), frames),
        ("0002", "0001", slice(4, 7), frames),
        ("0003", "0001", slice(4, 7), 0 * frames),
    ):
        count = part.stop - part.start
        record = Clip(name, parent, 0, part.start, count, "", 1, sampling)
        folder.write_clip(record, cameras[part], pictures[part], settings)
    folder.write_cursor("0002", 3)
    assert run(tmp_path / "explored", "--out", tmp_path / "scene", *FEW) == 0
    report = json.loads((tmp_path / "scene" / "report.json").read_text())
    assert report["frames"] == list(range(7))
    assert report["source"].endswith("clips 0001, 0002")
    points = read_points(tmp_path / "scene")
    assert len(points) > 1000
    assert np.median(np.abs(points["xyz"] @ NORMAL - OFFSET)) < 0.02


def test_a_generated_folder_becomes_a_scene(clip, tmp_path, capsys):
    folder, _, _ = clip
    assert run(folder / "generated", "--out", tmp_path / "scene", *FEW) == 0
    report = json.loads((tmp_path / "scene" / "report.json").read_text())
    points = read_points(tmp_path / "scene")
    assert report["points"] == len(points) > 1000
    assert f"{len(points)} points" in capsys.readouterr().out
    assert np.median(np.abs(points["xyz"] @ NORMAL - OFFSET)) < 0.02
    assert report["unit"] == "metre"
    assert report["frames"] == list(range(7))
    assert report["planes"] == 32
    assert report["median_parallax_deg"] > 3
    assert 0.3 < report["coverage"] <= 1
    assert report["seconds"] > 0
    written = {
        path.relative_to(tmp_path / "scene").as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert {
        "points.ply",
        "scene.glb",
        "transforms.json",
        "sparse/0/images.bin",
        "images/frame_00006.png",
    } <= written
    assert not list(tmp_path.glob(".*"))
    assert {report["files"][name] for name in ("ply", "glb")} == {"points.ply", "scene.glb"}


def test_a_video_with_a_pose_file_and_masks_becomes_the_same_scene(clip, tmp_path):
    folder, _, frames = clip
    for index in range(len(frames)):
        mask = np.zeros(SIZE, np.uint8)
        mask[:, :20] = 255
        write_png(tmp_path / "masks" / f"{index}.png", mask)
    source = (folder / "video.mp4", "--cameras", folder / "transforms.json")
    masked = ("--masks", tmp_path / "masks", "--formats", "ply")
    assert run(*source, *masked, "--out", tmp_path / "scene", *NEAR_FAR) == 0
    report = json.loads((tmp_path / "scene" / "report.json").read_text())
    assert report["unit"] == "metre"  # the file says so
    assert report["masked"] == pytest.approx(22 / 64, abs=0.001)  # grown by two pixels
    assert report["coverage"] < 1 - 22 / 64
    assert {path.name for path in (tmp_path / "scene").iterdir()} == {"points.ply", "report.json"}


def test_point_maps_become_a_scene(clip, tmp_path):
    folder, cameras, _ = clip
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "depth.npy", plane_video(cameras, SIZE)[1])
    words = ("--method", "maps", "--maps", tmp_path / "maps", "--metric", "--formats", "ply")
    assert run(folder / "generated", "--out", tmp_path / "scene", *words) == 0
    np.testing.assert_allclose(read_points(tmp_path / "scene")["xyz"] @ NORMAL, OFFSET, atol=0.03)


def failure(capsys, *words):
    assert run(*words) == 1
    return capsys.readouterr().err


def test_every_misfit_is_named_and_leaves_nothing(clip, tmp_path, capsys, monkeypatch):
    folder, cameras, frames = clip
    out = tmp_path / "scene"
    video, poses = folder / "video.mp4", folder / "transforms.json"
    to = ("--out", out)
    assert "has no cameras: name them with --cameras" in failure(capsys, video, *to)
    assert "no such file" in failure(capsys, folder / "nothing.mp4", *to)
    assert "--cameras" in failure(capsys, video, "--cameras", folder / "nothing.txt", *to)
    assert "either a source" in failure(capsys, *to)
    assert "either a source" in failure(capsys, video, "--worlds-seed", 1, *to)
    assert "--maps FOLDER go together" in failure(capsys, video, "--cameras", poses, "--method", "maps", *to)
    assert "--masks or --motion" in failure(
        capsys, video, "--cameras", poses, "--masks", tmp_path, "--motion", *to
    )
    for option in (("--size", "96x160"), ("--frames", 9), ("--still",)):
        told = failure(capsys, video, "--cameras", poses, *option, *to)
        assert f"{option[0]} is of the render of a world" in told
    assert "planes is 1" in failure(capsys, video, "--cameras", poses, "--planes", 1, *to)

    save_cameras(cameras[:5], tmp_path / "five.json", format="transforms_json", image_size=SIZE)
    assert "7 frames, but 5 poses" in failure(capsys, video, "--cameras", tmp_path / "five.json", *to)
    save_cameras(cameras, tmp_path / "crop.json", format="transforms_json", image_size=(40, 40))
    error = failure(capsys, video, "--cameras", tmp_path / "crop.json", *to)
    assert "belongs to pictures of 40x40" in error
    assert "has 40x64" in error

    lens = ("--intrinsics", 0.75, 1.0, 0.48, 0.53)
    tum = ("--cameras", folder / "tum.txt")
    assert "poses without a lens" in failure(capsys, video, *tum, *to)
    assert "look like pixels" in failure(capsys, video, *tum, "--intrinsics", 48, 40, 32, 20, *to)
    assert run(video, *tum, *lens, *NEAR_FAR, "--formats", "ply", "--out", tmp_path / "lens") == 0
    points = read_points(tmp_path / "lens")["xyz"]
    assert np.median(np.abs(points @ NORMAL - OFFSET)) < 0.02

    turning = truck(length=0.0)
    save_cameras(turning, tmp_path / "pan.json", format="transforms_json", image_size=SIZE)
    error = failure(capsys, video, "--cameras", tmp_path / "pan.json", *to)
    assert "too little parallax: 0.0 degrees" in error
    assert "only turns" in error

    generated(tmp_path / "without", None, frames)
    assert "without a camera path" in failure(capsys, tmp_path / "without", *to)
    generated(tmp_path / "ragged", cameras, frames)
    document = json.loads((tmp_path / "ragged" / "generation.json").read_text())
    document["camera"]["world_from_camera"] = [[1, 2], [3]]
    write_json(tmp_path / "ragged" / "generation.json", document)
    assert "does not hold a path" in failure(capsys, tmp_path / "ragged", *to)
    assert "--intrinsics goes with --cameras" in failure(capsys, folder / "generated", *lens, *to)
    generated(tmp_path / "short", cameras[:5], frames)
    assert "5 poses for 7 frames" in failure(capsys, tmp_path / "short", *to)
    assert "holds 0 pictures for 7 frames" in failure(
        capsys, folder / "generated", "--masks", tmp_path / "without", *to
    )
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("x")
    assert "already exists" in failure(capsys, folder / "generated", *to)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_scene_without_points_is_an_error(clip, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), np.uint8)
    generated(tmp_path / "noise", truck(), noise)
    error = failure(capsys, tmp_path / "noise", "--out", tmp_path / "scene", *NEAR_FAR)
    assert "the scene is empty" in error
    assert "within 2 %" in error
    assert not (tmp_path / "scene").exists()


def test_a_failed_write_leaves_nothing(clip, tmp_path, capsys, monkeypatch):
    from camctrl_jax.reconstruction import scenes

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes, "write_glb", fails)
    error = failure(capsys, clip[0] / "generated", "--out", tmp_path / "scene", *NEAR_FAR)
    assert "disk is full" in error
    assert list(tmp_path.iterdir()) == []


def test_only_key_frames_are_kept_of_a_long_video(clip, tmp_path):
    from camctrl_jax.camera.reading import Reading
    from camctrl_jax.export.scene_source import source_of_files
    from camctrl_jax.reconstruction.dense_depth import SweepSettings

    frames = np.repeat(clip[2][:1], 40, axis=0)
    frames[:, 0, 0, 0] = np.arange(40)
    poses = np.tile(np.eye(4), (40, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 1, 40)
    generated(tmp_path, Cameras(poses, (0.7, 1.0, 0.5, 0.5)), frames)
    source = source_of_files(tmp_path, None, Reading(), "auto", False, SweepSettings(views=5))
    np.testing.assert_array_equal(source.indices, [0, 10, 20, 30, 39])
    np.testing.assert_array_equal(source.frames[:, 0, 0, 0], source.indices)
    np.testing.assert_allclose(source.cameras.positions[:, 0], poses[source.indices, 0, 3])
    assert source.total == 40
